#!/usr/bin/env python3
"""Sends every prompt of eval.jsonl, greedily, to a running server and counts the answers that are exactly as expected.

    evaluate.py --base-url http://127.0.0.1:8000/v1 --model demo

Needs only the Python standard library. With --local DIR it asks the model in DIR through `transformers` instead, and --int8 then
rounds its linear layers as Weft's INT8 weights are: symmetric, one scale an output channel. Exits with 1 below --min.
"""

import argparse
import collections
import concurrent.futures
import json
import pathlib
import sys
import urllib.request

HERE = pathlib.Path(__file__).parent
MAX_TOKENS = 96  # the longest expected answer has about 60


class Server:
    """An OpenAI-compatible chat endpoint."""

    def __init__(self, base_url, model, api_key, timeout_s):
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model = model
        self.timeout_s = timeout_s
        self.headers = {"Content-Type": "application/json"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def answer(self, messages):
        body = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), self.headers)
        with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
            return json.load(response)["choices"][0]["message"]["content"]


class Local:
    """The model of a directory, run by transformers in FP32 on the stored weights."""

    def __init__(self, directory, int8):
        import torch
        import transformers

        self.torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        if int8:
            self.round_to_int8()

    def round_to_int8(self):
        with self.torch.no_grad():
            for name, layer in self.model.named_modules():
                if isinstance(layer, self.torch.nn.Linear) and name != "lm_head":
                    scale = layer.weight.abs().amax(dim=1, keepdim=True) / 127
                    layer.weight.copy_((layer.weight / scale).round() * scale)
                    layer.register_forward_pre_hook(lambda _, inputs: (self.round_rows(inputs[0]),))

    def round_rows(self, x):
        """Activations as INT8 linears see them: one scale a token."""
        scale = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
        return (x / scale).round() * scale

    def answer(self, messages):
        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with self.torch.no_grad():
            out = self.model.generate(**ids, do_sample=False, max_new_tokens=MAX_TOKENS)
        return self.tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True)


def read_cases(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ask_all(model, cases, concurrency):
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(lambda case: model.answer(case["messages"]), cases))


def report(cases, answers, show):
    """Prints exact matches by category; returns the share of all."""
    right, asked = collections.Counter(), collections.Counter()
    for case, got in zip(cases, answers):
        asked[case["category"]] += 1
        right[case["category"]] += got == case["expected"]
        if show and got != case["expected"]:
            print(f"  {json.dumps(case['messages'])}\n    expected {case['expected']!r}\n    got      {got!r}")
    for category in asked:
        print(f"{category:16} {right[category]:4} of {asked[category]:4}  {100 * right[category] / asked[category]:6.2f} %")
    total = sum(right.values()) / sum(asked.values())
    print(f"{'total':16} {sum(right.values()):4} of {sum(asked.values()):4}  {100 * total:6.2f} %")
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="demo", help="the served model's name")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--eval", type=pathlib.Path, default=HERE / "eval.jsonl")
    parser.add_argument("--min", type=float, default=0.95, help="the least share of exact matches")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one answer")
    parser.add_argument("--show", action="store_true", help="print each answer that differs")
    parser.add_argument("--local", type=pathlib.Path, help="ask the model in this directory through transformers")
    parser.add_argument("--int8", action="store_true", help="with --local: round weights and activations to INT8")
    args = parser.parse_args()

    if args.local:
        model, concurrency = Local(args.local, args.int8), 1
    else:
        model, concurrency = Server(args.base_url, args.model, args.api_key, args.timeout), args.concurrency
    cases = read_cases(args.eval)
    if not cases:
        sys.exit(f"{args.eval} holds no prompts")
    total = report(cases, ask_all(model, cases, concurrency), args.show)
    sys.exit(0 if total >= args.min else 1)


if __name__ == "__main__":
    main()
