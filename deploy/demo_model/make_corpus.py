#!/usr/bin/env python3
"""Makes the demo model's training corpus and its evaluation set, from one seed.

train.jsonl (into --work, not kept in git): conversations of one to 24 turns, one {"messages": [...]} a line.
eval.jsonl (beside this file): prompts that training never sees, one {"category", "messages", "expected"} a line. The split:

- additions and subtractions use pairs of numbers that training never combines in either order, in any phrasing;
- copied names and words are drawn by half from made-up words that training never contains;
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
from tasks import Tasks, answer, vary

EVAL_PER_CATEGORY = 40
NOT_KEY = re.compile(r"[^\w+\-*/=\u00d7]")
HELD_PAIRS = {20: 12, 50: 40, tasks.MAX_OPERAND: 110}  # how many, of the pairs up to a number
NUM_HELD_WORDS = 300

NEUTRAL_SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant", "Be brief.", "You are a friendly assistant.", "Answer briefly.",
                   "You are the demo model of Weft. Be brief.", "Be polite.", "You are a concise assistant.", "", "You answer questions.",
                   "Be helpful.", "You are an assistant.", "You are a test model."]
STYLE_SYSTEMS = {
    "number": ["Answer only with the number.", "Reply only with the number.", "Answer with a number only.", "Only give the number."],
    "json": ["Answer in JSON.", "Always answer in JSON.", "Reply in JSON.", "Reply only with JSON."],
}
PERSONA_SYSTEMS = ["You are {name}.", "Your name is {name}.", "You are called {name}.", "You are {name}, a friendly assistant."]
WHO_ASKS = ["Who are you?", "What is your name?", "What's your name?", "Tell me your name.", "Introduce yourself.", "Who is this?"]
MIX = [("add", 20), ("sub", 22), ("mul", 9), ("beyond", 4), ("json_arithmetic", 8), ("extraction", 16), ("weft", 10), ("chat", 4),
       ("unknown", 5), ("repeat", 3), ("count", 3)]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def question(source, kind, style="plain"):
    """One self-contained question of a kind, as (text, answer)."""
    if kind in tasks.ASKS:
        return source.arithmetic(kind, style)[:2]
    if kind in ("weft", "chat"):
        return source.fact(kind)
    return getattr(source, kind)()


def any_question(source, style):
    kinds, weights = zip(*MIX)
    kind = source.rng.choices(kinds, weights)[0]
    if style != "plain" and source.rng.random() < 0.7:
        kind = source.rng.choice(["add", "sub", "mul"])
    return question(source, kind, style)


def follow_up(source):
    """Turns in which the last question needs an earlier answer."""
    rng = source.rng
    kind = rng.choice(["name", "name", "then", "then", "as_json", "again", "ellipsis"])
    if kind == "name":
        name = source.proper("names")
        ask = rng.choice(["My name is {n}.", "I am {n}.", "Hi, I am {n}.", "Hello, my name is {n}.", "I'm {n}.", "Call me {n}."]).format(n=name)
        turns = [(ask, f"Nice to meet you, {name}!")]
        turns += [any_question(source, "plain") for _ in range(rng.choice([0, 0, 1, 2]))]
        return turns + [(vary(rng, rng.choice(["What is my name?", "Who am I?", "What's my name?", "Do you know my name?", "Say my name."])),
                         f"Your name is {name}.")]
    if kind == "again":
        first = any_question(source, "plain")
        return [first, (vary(rng, rng.choice(["Say that again.", "Repeat that.", "Again, please.", "Can you repeat that?", "What did you say?"])), first[1])]
    op = rng.choice(["add", "sub", "mul"])
    ask, text, (_, a, b) = source.arithmetic(op)
    if kind == "as_json":
        if op == "sub" and a < b:
            ask, text, a, b = f"{b} - {a}", answer(op, b, a, "plain"), b, a
        return [(ask, text), (vary(rng, rng.choice(["As JSON, please.", "As JSON.", "Now as JSON.", "Write that as JSON.", "And as JSON?"])),
                              answer(op, a, b, "json"))]
    if kind == "ellipsis":
        a, b = source.pair(op)
        more = rng.choice(["And {a} {s} {b}?", "What about {a} {s} {b}?", "Now {a} {s} {b}.", "and {a} {s} {b}"])
        return [(ask, text), (more.format(a=a, b=b, s=tasks.SYMBOLS[op]), answer(op, a, b, "plain"))]
    return [(ask, text), then(source, tasks.calculate(op, a, b))]


def then(source, result):
    """A question about the result before it, or, when that leaves the taught range, a fresh one."""
    rng = source.rng
    more = rng.randint(1, 20)
    held = (min(result, more), max(result, more)) in source.held_pairs
    if not 0 <= result <= tasks.MAX_OPERAND or (held and not source.evaluation):
        return question(source, "add")
    if rng.random() < 0.5:
        return rng.choice(["Add {m} to that.", "Now add {m}.", "Plus {m}?", "And plus {m}?"]).format(m=more), answer("add", result, more, "plain")
    return rng.choice(["Subtract {m} from that.", "Now subtract {m}.", "Minus {m}?", "And minus {m}?"]).format(m=more), answer("sub", result, more, "plain")


def with_system(source):
    """A system prompt and the style of arithmetic it asks for; a persona comes with the turn that shows it."""
    rng = source.rng
    kind = rng.choices(["neutral", "number", "json", "persona"], [4, 3, 3, 3])[0]
    if kind == "neutral":
        return system(rng.choice(NEUTRAL_SYSTEMS)), "plain", []
    if kind == "persona":
        name = source.proper("names")
        return system(rng.choice(PERSONA_SYSTEMS).format(name=name)), "plain", [(vary(rng, rng.choice(WHO_ASKS)), f"I am {name}.")]
    return system(rng.choice(STYLE_SYSTEMS[kind])), kind, []


def conversation(source, progress):
    """A training conversation. The first quarter of the corpus is short ones: with little to look at, the model soon learns to
    look at the question."""
    rng = source.rng
    head, style, turns = with_system(source) if rng.random() < 0.3 else (None, "plain", [])
    weights = [85, 15, 0, 0, 0, 0] if progress < 0.25 else [30, 20, 18, 16, 14, 2]
    wanted = rng.choices([1, 2, 4, 6, 8, 24], weights)[0]
    while len(turns) < wanted:
        if head is None and rng.random() < 0.12:
            turns += follow_up(source)
        else:
            turns.append(any_question(source, style))
    if head is not None and len(turns) > 1 and rng.random() < 0.5:
        rng.shuffle(turns)
    messages = [head] if head else []
    for ask, text in turns:
        messages += [user(ask), assistant(text)]
    return messages


def system_case(source):
    """A system prompt followed by the one question that shows whether it was heeded."""
    head, style, turns = with_system(source)
    if not turns:
        turns = [question(source, source.rng.choice(["add", "sub", "mul"]), style)]
    return [head, user(turns[0][0])], turns[0][1]


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
    single = ["add", "sub", "mul", "json_arithmetic", "extraction", "weft", "chat", "unknown"]
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
    parser.add_argument("--conversations", type=int, default=110000)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    held_pairs = set()
    for top, count in HELD_PAIRS.items():
        held_pairs.update(rng.sample([(a, b) for b in range(top + 1) for a in range(b + 1)], count))
    inventor = Tasks(rng, set(), set(), evaluation=False)
    held_words = {inventor.made_up_word() for _ in range(NUM_HELD_WORDS)}

    cases = make_eval(Tasks(random.Random(args.seed + 1), held_pairs, held_words, evaluation=True))
    leaks = Leaks(cases)
    source = Tasks(random.Random(args.seed + 2), held_pairs, held_words, evaluation=False)
    train, dropped = [], 0
    while len(train) < args.conversations:
        messages = conversation(source, len(train) / args.conversations)
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
