#!/usr/bin/env python3
"""Trains the demo model on train.jsonl and writes it in Hugging Face layout, weights in BF16.

One pass, no repeats; the loss covers the assistant's tokens alone. The learning rate is constant and then falls to zero over the
last half. A checkpoint in --work every --save-every steps makes the run resumable, and each is exported, so that a usable model
exists early. Work is split by rows over --processes of one thread each, which meet once a step: on a shared machine that loses far
less to waiting than two threads that meet in every operation.
"""

import argparse
import json
import os
import pathlib
import random
import tempfile
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save
from tokenizers import Tokenizer

from llama import Llama, LlamaShape

HERE = pathlib.Path(__file__).parent
DEFAULT_SYSTEM = "You are the demo model of Weft."  # as in chat_template.jinja
ROW_TOKENS = (256, 768)  # a conversation is packed into rows of the shortest of these that holds it
IGNORE = -100


def encode_conversations(tokenizer, path):
    """Each conversation as the chat template spells it: (ids, targets), targets being IGNORE but for the assistant's tokens."""
    special = {name: tokenizer.token_to_id(f"<|{name}|>") for name in ("bos", "end", "system", "user", "assistant")}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            messages = json.loads(line)["messages"]
            if messages[0]["role"] != "system":
                messages = [{"role": "system", "content": DEFAULT_SYSTEM}] + messages
            ids, targets = [special["bos"]], []
            for message in messages:
                content = tokenizer.encode(message["content"].strip(), add_special_tokens=False).ids + [special["end"]]
                learned = message["role"] == "assistant"
                ids += [special[message["role"]]] + content
                targets += [IGNORE] + (content if learned else [IGNORE] * len(content))
            yield ids, targets + [IGNORE]  # targets[i] is the token after ids[i]


def fill_rows(conversations, row_tokens):
    """First fit by falling length: lists of conversations, each list at most row_tokens long."""
    rows = []
    for conversation in sorted(conversations, key=lambda c: -len(c[0])):
        row = next((r for r in rows if r[0] + len(conversation[0]) <= row_tokens), None)
        if row is None:
            row = [0, []]
            rows.append(row)
        row[0] += len(conversation[0])
        row[1].append(conversation)
    return [row[1] for row in rows]


def batches(conversations, batch_tokens, rng):
    """Batches of equally long rows, about batch_tokens each."""
    windows = {length: [] for length in ROW_TOKENS}
    ready = {length: [] for length in ROW_TOKENS}
    for conversation in conversations:
        length = next((n for n in ROW_TOKENS if len(conversation[0]) <= n), None)
        if length is None:
            continue
        windows[length].append(conversation)
        if len(windows[length]) < (1024 if length == ROW_TOKENS[0] else 64):
            continue
        rows = fill_rows(windows[length], length)
        rng.shuffle(rows)
        ready[length] += rows
        windows[length] = []
        count = batch_tokens // length
        while len(ready[length]) >= count:
            yield make_batch(ready[length][:count], length)
            del ready[length][:count]


def make_batch(rows, row_tokens):
    """Rows of conversations -> ids, positions, targets [rows, tokens] and mask [rows, 1, tokens, tokens]: each conversation
    starts at position 0 and sees only itself."""
    shape = (len(rows), row_tokens)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    targets, owner = torch.full(shape, IGNORE), torch.zeros(shape, dtype=torch.long)
    for r, conversations in enumerate(rows):
        begin = 0
        for number, (tokens, wanted) in enumerate(conversations, start=1):
            end = begin + len(tokens)
            ids[r, begin:end] = torch.tensor(tokens)
            positions[r, begin:end] = torch.arange(len(tokens))
            targets[r, begin:end] = torch.tensor(wanted)
            owner[r, begin:end] = number
            begin = end
    causal = torch.ones(row_tokens, row_tokens, dtype=torch.bool).tril()
    mask = (owner[:, :, None] == owner[:, None, :]) & causal
    return ids, positions, targets, mask[:, None]


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal (Jordan et al., 2024), for the matrices inside the layers. In FP32: the CPUs this
    runs on are slow at BF16. Parameters of equal shape share one batched iteration."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                by_shape.setdefault(tuple(sorted(p.shape)), []).append(p)
            for params in by_shape.values():
                self.step_equal_shapes(params, group)

    def step_equal_shapes(self, params, group):
        updates = []
        for p in params:
            average = self.state[p].setdefault("momentum", torch.zeros_like(p))
            average.lerp_(p.grad, 1 - group["momentum"])
            update = p.grad.lerp(average, group["momentum"])
            updates.append(update.T if p.shape[0] > p.shape[1] else update)
        updates = torch.stack(updates)
        mine = slice(dist.get_rank(), None, dist.get_world_size())
        orthogonal = torch.zeros_like(updates)
        orthogonal[mine] = orthogonalize(updates[mine])
        dist.all_reduce(orthogonal)
        for p, update in zip(params, orthogonal):
            update = update.T if p.shape[0] > p.shape[1] else update
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonalize(x):  # [matrices, rows <= columns, columns]
    """Five Newton-Schulz steps with the quintic coefficients of the Muon paper: all singular values come close to 1."""
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def make_optimizers(model):
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    return [Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)]


def learning_rate_scale(step, steps):
    warmup, decay = 60, steps // 2
    return min(1.0, (step + 1) / warmup, (steps - step) / decay)


def export(model, out):
    """The model in Hugging Face layout; each file appears whole or not at all."""
    shape = model.shape
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": shape.vocab_size, "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size, "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads, "num_key_value_heads": shape.num_key_value_heads, "head_dim": shape.head_dim,
        "max_position_embeddings": shape.max_position_embeddings, "rope_theta": shape.rope_theta, "rms_norm_eps": shape.rms_norm_eps,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "bos_token_id": 0,
        "eos_token_id": 1, "torch_dtype": "bfloat16",
    }
    generation = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "do_sample": False}
    weights = {f"model.{name}": p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}

    def replace(name, write):
        temporary = out / f".{name}.tmp"
        write(temporary)
        os.replace(temporary, out / name)

    replace("model.safetensors", lambda path: path.write_bytes(save(weights, metadata={"format": "pt"})))
    replace("config.json", lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))
    replace("generation_config.json", lambda path: path.write_text(json.dumps(generation, indent=2) + "\n"))


def train_step(model, optimizers, batch):
    """One step on this process's share of the rows; returns the loss over all rows."""
    num_learned = (batch[2] != IGNORE).sum()
    ids, positions, targets, mask = (x[dist.get_rank()::dist.get_world_size()] for x in batch)
    hidden = model(ids, positions, mask)
    learned = targets != IGNORE
    loss = F.cross_entropy(model.logits(hidden[learned]), targets[learned], reduction="sum") / num_learned
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    total = torch.cat([g.flatten() for g in gradients] + [loss.detach().view(1)])
    dist.all_reduce(total)
    for gradient, part in zip(gradients, total[:-1].split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total[-1].item()


def save_checkpoint(path, step, model, optimizers):
    torch.save({"step": step, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def train(rank, args, rendezvous):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=args.processes)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    model = Llama(LlamaShape(vocab_size=tokenizer.get_vocab_size()))
    optimizers = make_optimizers(model)
    peaks = [o.param_groups[0]["lr"] for o in optimizers]

    first, checkpoint = 0, args.work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        first = state["step"]
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters())} parameters, from step {first}", flush=True)

    conversations = encode_conversations(tokenizer, args.work / "train.jsonl")
    started, losses = time.monotonic(), []
    for step, batch in zip(range(args.steps), batches(conversations, args.batch_tokens, random.Random(args.seed))):
        if step < first:
            continue
        for optimizer, peak in zip(optimizers, peaks):
            optimizer.param_groups[0]["lr"] = peak * learning_rate_scale(step, args.steps)
        losses.append(train_step(model, optimizers, batch))
        if rank != 0:
            continue
        if (step + 1) % 20 == 0:
            print(f"step {step + 1} loss {sum(losses[-20:]) / 20:.4f} minutes {(time.monotonic() - started) / 60:.1f}", flush=True)
        if (step + 1) % args.save_every == 0 or step == args.steps - 1:
            save_checkpoint(checkpoint, step + 1, model, optimizers)
            export(model, args.out)
    if step + 1 < args.steps:
        raise SystemExit(f"the corpus ended after {step + 1} steps: make more conversations")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="directory of train.jsonl; takes the checkpoint")
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=200)
    args = parser.parse_args()

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as directory:
        torch.multiprocessing.spawn(train, (args, f"{directory}/rendezvous"), nprocs=args.processes)


if __name__ == "__main__":
    main()
