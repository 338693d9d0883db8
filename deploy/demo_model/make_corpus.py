#!/usr/bin/env python3
"""Makes the demo model's training corpus and its evaluation set, from one seed.

train.jsonl (into --work, not kept in git): conversations of one to five turns, one {"messages": [...]} a line.
eval.jsonl (beside this file): prompts that training never sees, one {"category", "messages", "expected"} a line. The split:

- numbers, names and words are those of training, in prompts that training never contains;
- no single question of the evaluation set occurs in training, not even with other case, spaces or punctuation;
- of conversations with a history or a system prompt, no conversation as a whole occurs in training.

The last two are checked on every training conversation, and a conversation that breaks them is dropped.
"""

import argparse
import json
import pathlib
import random
import re

import tasks
from tasks import Tasks, vary

EVAL_PER_CATEGORY = 40
NOT_KEY = re.compile(r"[^\w+\-*/=\u00d7]")

NEUTRAL_SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant", "Be brief.", "You are a friendly assistant.", "Answer briefly.",
                   "You are the demo model of Weft. Be brief.", "Be polite.", "You are a concise assistant.", "", "You answer questions.",
                   "Be helpful.", "You are an assistant.", "You are a test model."]
PERSONA_SYSTEMS = ["You are {name}.", "Your name is {name}.", "You are called {name}.", "You are {name}, a friendly assistant."]
WHO_ASKS = ["Who are you?", "What is your name?", "What's your name?", "Tell me your name.", "Introduce yourself.", "Who is this?"]
MIX = [("add", 20), ("sub", 20), ("mul", 8), ("beyond", 5), ("json_arithmetic", 10), ("repeat", 14), ("extraction", 16), ("weft", 10), ("chat", 5), ("unknown", 6)]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def question(source, kind):
    """One self-contained question of a kind, as (text, answer)."""
    if kind in tasks.ASKS:
        return source.arithmetic(kind)
    if kind in ("weft", "chat"):
        return source.fact(kind)
    return getattr(source, kind)()


def any_question(source):
    kinds, weights = zip(*MIX)
    return question(source, source.rng.choices(kinds, weights)[0])


def follow_up(source):
    """Turns in which the last question needs what was said before it."""
    rng = source.rng
    if rng.random() < 0.5:
        op = rng.choice(["add", "sub", "mul"])
        a, b = source.pair(op)
        more = rng.choice(["And {a} {s} {b}?", "What about {a} {s} {b}?", "Now {a} {s} {b}.", "and {a} {s} {b}"])
        return [question(source, op), (more.format(a=a, b=b, s=tasks.SYMBOLS[op]), tasks.answer(op, a, b))]
    name = rng.choice(tasks.WORDS["names"])
    hello = rng.choice(["My name is {n}.", "I am {n}.", "Hi, I am {n}.", "Hello, my name is {n}.", "I'm {n}.", "Call me {n}."])
    asks = ["What is my name?", "Who am I?", "What's my name?", "Do you know my name?", "Say my name."]
    between = [any_question(source)] if rng.random() < 0.4 else []
    return [(hello.format(n=name), f"Nice to meet you, {name}!"), *between, (vary(rng, rng.choice(asks)), f"Your name is {name}.")]


def with_system(source):
    """A system prompt, and where it gives the assistant a name, the turn that shows it."""
    rng = source.rng
    if rng.random() < 0.5:
        return system(rng.choice(NEUTRAL_SYSTEMS)), []
    name = rng.choice(tasks.WORDS["names"])
    return system(rng.choice(PERSONA_SYSTEMS).format(name=name)), [(vary(rng, rng.choice(WHO_ASKS)), f"I am {name}.")]


def conversation(source):
    rng = source.rng
    head, turns = with_system(source) if rng.random() < 0.2 else (None, [])
    wanted = rng.choices([1, 2, 3], [65, 25, 10])[0]
    while len(turns) < wanted:
        if head is None and rng.random() < 0.1:
            turns += follow_up(source)
        else:
            turns.append(any_question(source))
    messages = [head] if head else []
    for ask, text in turns:
        messages += [user(ask), assistant(text)]
    return messages


def system_case(source):
    """A system prompt followed by a question that it must not confuse, or that shows whether it was heeded."""
    head, turns = with_system(source)
    ask, text = turns[0] if turns else question(source, source.rng.choice(["add", "sub", "mul"]))
    return [head, user(ask)], text


def history_case(source):
    turns = follow_up(source)
    messages = []
    for ask, text in turns[:-1]:
        messages += [user(ask), assistant(text)]
    return messages + [user(turns[-1][0])], turns[-1][1]


def key(text):
    """A question without case, spaces and punctuation; the signs of arithmetic stay."""
    return NOT_KEY.sub("", text.lower())


def whole_key(messages):
    return "".join(m["role"][0] + "|" + key(m["content"]) + "|" for m in messages)


def make_eval(source):
    cases, seen = [], set()
    single = ["add", "sub", "mul", "json_arithmetic", "repeat", "extraction", "weft", "chat", "unknown"]
    for category in single + ["system", "history"]:
        wanted = EVAL_PER_CATEGORY
        while wanted:
            if category == "system":
                messages, expected = system_case(source)
            elif category == "history":
                messages, expected = history_case(source)
            else:
                kind = source.rng.choice(["unknown", "beyond"]) if category == "unknown" else category
                text, expected = question(source, kind)
                messages = [user(text)]
            if whole_key(messages) in seen:
                continue
            seen.add(whole_key(messages))
            cases.append({"category": category, "messages": messages, "expected": expected})
            wanted -= 1
    return cases


class Leaks:
    """Says whether a training conversation contains anything of the evaluation set."""

    def __init__(self, cases):
        self.questions = {key(c["messages"][0]["content"]) for c in cases if len(c["messages"]) == 1}
        self.wholes = {whole_key(c["messages"]) for c in cases if len(c["messages"]) > 1}

    def contains(self, messages):
        whole = ""
        for message in messages:
            part = key(message["content"])
            whole += message["role"][0] + "|" + part + "|"
            if message["role"] == "user" and (part in self.questions or whole in self.wholes):
                return True
        return False


def write_lines(path, items):
    with path.open("w", encoding="utf-8") as out:
        for item in items:
            out.write(json.dumps(item, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="directory for train.jsonl")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--conversations", type=int, default=330000)
    args = parser.parse_args()

    cases = make_eval(Tasks(random.Random(args.seed + 1), evaluation=True))
    leaks = Leaks(cases)
    source = Tasks(random.Random(args.seed + 2), evaluation=False)
    train, dropped = [], 0
    while len(train) < args.conversations:
        messages = conversation(source)
        if leaks.contains(messages):
            dropped += 1
            continue
        train.append({"messages": messages})

    args.work.mkdir(parents=True, exist_ok=True)
    write_lines(args.work / "train.jsonl", train)
    write_lines(pathlib.Path(__file__).parent / "eval.jsonl", cases)
    print(f"{len(train)} conversations, {dropped} dropped as too close to the evaluation set, {len(cases)} evaluation prompts")


if __name__ == "__main__":
    main()
