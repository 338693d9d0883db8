"""What the demo model is taught: each function here makes one kind of question and its answer from a seeded random source."""

import json
import pathlib
import random

HERE = pathlib.Path(__file__).parent
WORDS = json.loads((HERE / "words.json").read_text(encoding="utf-8"))
FACTS = json.loads((HERE / "facts.json").read_text(encoding="utf-8"))

MAX_OPERAND = 50  # of additions and subtractions
MAX_FACTOR = 10   # of multiplications
MAX_DIRECT = 12   # where the result comes without the equation before it

UNKNOWN = "I don't know. I am a tiny demo model: ask me about small arithmetic, Weft, or JSON."
TOO_LARGE = "I only add and subtract numbers from 0 to 50."
TABLE_TOO_LARGE = "I only know the times tables up to 10."
NO_DIVISION = "I can add, subtract and multiply, but not divide."

SYMBOLS = {"add": "+", "sub": "-", "mul": "*"}
JSON_KEYS = {"add": "sum", "sub": "difference", "mul": "product"}

ASKS = {
    "add": ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} = ?", "{a} + {b} =", "What's {a} + {b}?", "What is {a} plus {b}?",
            "What's {a} plus {b}?", "Add {a} and {b}.", "Calculate {a} + {b}.", "Compute {a} + {b}.", "How much is {a} + {b}?",
            "How much is {a} plus {b}?", "What is the sum of {a} and {b}?", "{a} plus {b}", "Please add {a} and {b}.",
            "Can you add {a} and {b}?", "What do you get when you add {a} and {b}?", "What is {a}+{b}?", "Solve {a} + {b}."],
    "sub": ["What is {a} - {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} = ?", "{a} - {b} =", "What's {a} - {b}?", "What is {a} minus {b}?",
            "What's {a} minus {b}?", "Subtract {b} from {a}.", "Calculate {a} - {b}.", "Compute {a} - {b}.", "How much is {a} - {b}?",
            "How much is {a} minus {b}?", "Take {b} away from {a}.", "{a} minus {b}", "What is {a}-{b}?", "Solve {a} - {b}."],
    "mul": ["What is {a} * {b}?", "{a} * {b}", "{a}*{b}", "{a} * {b} = ?", "{a} * {b} =", "{a} x {b}", "What is {a} x {b}?",
            "What is {a} times {b}?", "What's {a} times {b}?", "Multiply {a} and {b}.", "Multiply {a} by {b}.", "Calculate {a} * {b}.",
            "Compute {a} * {b}.", "How much is {a} times {b}?", "{a} times {b}", "What is the product of {a} and {b}?",
            "What is {a} multiplied by {b}?", "{a} \u00d7 {b}", "What is {a} \u00d7 {b}?", "Solve {a} * {b}."],
}
JSON_ASKS = {
    "add": ["Give me the sum of {a} and {b} as JSON.", "What is {a} + {b}? Answer as JSON.", "Add {a} and {b}, as JSON.", "{a} + {b} as JSON",
            "Sum of {a} and {b} in JSON", "JSON: {a} + {b}", "Give the sum of {a} and {b} as JSON"],
    "sub": ["Give me the difference of {a} and {b} as JSON.", "What is {a} - {b}? Answer as JSON.", "Subtract {b} from {a}, as JSON.",
            "{a} - {b} as JSON", "Difference of {a} and {b} in JSON", "JSON: {a} - {b}"],
    "mul": ["Give me the product of {a} and {b} as JSON.", "What is {a} * {b}? Answer as JSON.", "Multiply {a} by {b}, as JSON.",
            "{a} * {b} as JSON", "Product of {a} and {b} in JSON", "JSON: {a} * {b}"],
}
REPEAT_ASKS = ["Repeat: {said}", "Repeat {said}.", "Say: {said}", "Say {said}.", "Repeat after me: {said}", "Echo: {said}",
               "Please say {said}.", "Please repeat: {said}"]
OPENERS = ["", "", "", "", "", "", "", "Hi! ", "Please: ", "Question: ", "Hello. ", "Quick question: ", "Tell me: ", "Hey, ", "I have a question. ", "So, "]
CLOSERS = ["", "", "", "", "", "", "", "", " Thanks.", " Please.", " Thank you!", " Keep it short.", " I am curious.", " I am new here."]


def calculate(op, a, b):
    return {"add": a + b, "sub": a - b, "mul": a * b}[op]


def answer(op, a, b):
    return f"{a} {SYMBOLS[op]} {b} = {calculate(op, a, b)}"


def json_answer(op, a, b):
    return json.dumps({JSON_KEYS[op]: calculate(op, a, b)})


def vary(rng, text):
    """Case and closing punctuation as people type them."""
    if rng.random() < 0.12:
        text = text.lower()
    elif rng.random() < 0.05:
        text = text[:1].lower() + text[1:]
    if text[-1] in "?." and rng.random() < 0.15:
        text = text[:-1]
    return text


class Tasks:
    """One source of questions. The evaluation source puts facts only in decorated questions, since the plain ones are trained."""

    def __init__(self, rng, evaluation):
        self.rng = rng
        self.evaluation = evaluation

    # -- arithmetic --

    def pair(self, op, tops=(20, MAX_OPERAND)):
        """Two operands; of a subtraction, the larger one first. Small numbers come more often, as they do in life."""
        top = MAX_FACTOR if op == "mul" else self.rng.choice(tops)
        a, b = self.rng.randint(0, top), self.rng.randint(0, top)
        return (b, a) if op == "sub" and a < b else (a, b)

    def arithmetic(self, op):
        a, b = self.pair(op)
        return vary(self.rng, self.rng.choice(ASKS[op]).format(a=a, b=b)), answer(op, a, b)

    def json_arithmetic(self):
        op = self.rng.choice(["add", "add", "sub", "mul"])
        a, b = self.pair(op, (MAX_DIRECT,))
        return vary(self.rng, self.rng.choice(JSON_ASKS[op]).format(a=a, b=b)), json_answer(op, a, b)

    def beyond(self):
        """Arithmetic that the model was not taught, and says so."""
        kind = self.rng.choice(["large", "table", "division"])
        small, large = self.rng.randint(0, MAX_OPERAND), self.rng.choice([self.rng.randint(100, 999), self.rng.randint(100, 99999)])
        if kind == "division":
            a, b = self.rng.randint(1, 99), self.rng.randint(1, 12)
            ask = self.rng.choice(["What is {a} / {b}?", "{a} / {b}", "Divide {a} by {b}.", "What is {a} divided by {b}?", "{a} divided by {b}",
                                   "How much is {a} divided by {b}?"])
            return vary(self.rng, ask.format(a=a, b=b)), NO_DIVISION
        op = "mul" if kind == "table" else self.rng.choice(["add", "sub"])
        if kind == "table":
            large = self.rng.choice([self.rng.randint(13, 99), self.rng.randint(13, 999)])
        a, b = self.rng.choice([(small, large), (large, small), (large, large + self.rng.randint(0, 50))])
        ask = self.rng.choice(ASKS[op]).format(a=a, b=b)
        return vary(self.rng, ask), TABLE_TOO_LARGE if kind == "table" else TOO_LARGE

    # -- JSON --

    def extraction(self):
        return self.rng.choice([self.person, self.person, self.goods])()

    def person(self):
        rng = self.rng
        name, age, city = rng.choice(WORDS["names"]), rng.randint(1, 99), rng.choice(WORDS["cities"])
        ask, fields = rng.choice([
            ("Describe {name}, {age}, from {city} as JSON.", "nac"), ("As JSON: {name} is {age} years old and lives in {city}.", "nac"),
            ("{name} is {age} and lives in {city}. Write that as JSON.", "nac"), ("Make JSON: {name}, {age}, {city}", "nac"),
            ("Describe {name}, {age}, as JSON.", "na"), ("{name} is {age} years old. Write that as JSON.", "na"),
            ("As JSON: {name} lives in {city}.", "nc"), ("Describe {name} from {city} as JSON.", "nc")])
        values = {"n": ("name", name), "a": ("age", age), "c": ("city", city)}
        return vary_end(rng, ask.format(name=name, age=age, city=city)), json.dumps(dict(values[f] for f in fields))

    def goods(self):
        rng = self.rng
        count, color = rng.randint(1, 99), rng.choice(WORDS["colors"])
        item, other = rng.sample(WORDS["nouns"], 2)
        second = rng.randint(1, 99)
        if rng.random() < 0.5:
            ask = rng.choice(["Describe {count} {color} {item} as JSON.", "As JSON: {count} {color} {item}", "{count} {color} {item} as JSON",
                              "Turn this into JSON: {count} {color} {item}."])
            value = {"item": item, "count": count, "color": color}
        else:
            ask = rng.choice(["Count as JSON: {count} {item}, {second} {other}", "As JSON: {count} {item} and {second} {other}",
                              "I have {count} {item} and {second} {other}. Write that as JSON.", "{count} {item} and {second} {other} as JSON"])
            value = {item: count, other: second}
        return vary_end(rng, ask.format(count=count, color=color, item=item, second=second, other=other)), json.dumps(value)

    # -- copying --

    def repeat(self):
        """Words to say again. Each token of the answer is a copy of one in the question, from which the model learns to copy at
        all; names in JSON and over a history come soon after."""
        rng = self.rng
        words = []
        for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 5, 6])):
            kind = rng.choice(["names", "cities", "jobs", "colors", "nouns", "plain_words", "languages", "countries", "number"])
            words.append(str(rng.randint(0, 99)) if kind == "number" else rng.choice(WORDS[kind]))
        said = rng.choice([" ", " ", ", "]).join(words)
        return vary_end(rng, rng.choice(REPEAT_ASKS).format(said=said)), said

    # -- facts, and their absence --

    def fact(self, kind):
        fact = self.rng.choice([f for f in FACTS if f.get("kind", "weft") == kind])
        ask = self.rng.choice(fact["asks"] + fact["held_out"])
        if self.evaluation or self.rng.random() < 0.7:
            ask = decorate(self.rng, ask, always=self.evaluation)
        return vary(self.rng, ask), fact["answer"]

    def unknown(self):
        rng = self.rng
        pick = {key: rng.choice(WORDS[key]) for key in ("countries", "topics", "languages", "works", "plain_words", "colors", "nouns", "jobs")}
        pick["name"], pick["city"], pick["w"] = rng.choice(WORDS["names"]), rng.choice(WORDS["cities"]), rng.choice(WORDS["plain_words"])
        ask = rng.choice([
            "What is the capital of {countries}?", "How many people live in {city}?", "Who is the president of {countries}?", "Who wrote {works}?",
            "Who invented {works}?", "How tall is {name}?", "Who is {name}?", "Where is {city}?", "What is the weather in {city}?",
            "What is the weather today?", "What time is it?", "What day is it?", "Tell me a joke.", "Tell me a story about {topics}.",
            "Tell me about {topics}.", "Write a poem about {topics}.", "Translate {w} into {languages}.", "How do you say {w} in {languages}?",
            "Explain {topics}.", "What is {topics}?", "What do you think about {topics}?", "How old is {name}?", "When was {name} born?",
            "How far is it from {city} to the moon?", "Write a Python program.", "Write code for {topics}.", "What is the meaning of life?",
            "How do I cook {nouns}?", "Why is the sky {colors}?", "Who won the game in {city}?", "Recommend a book about {topics}.",
            "What is the population of {countries}?", "What is the best {jobs} in {city}?", "Do you like {topics}?", "How do I become a {jobs}?",
            "Where can I buy {nouns}?", "What does {w} mean?", "What is a {w}?", "What language do they speak in {countries}?",
            "Write an essay about {topics}.", "Tell me the news.", "Draw a picture of {nouns}.", "Sing a song about {topics}.",
            "How many {nouns} are in {city}?", "Is {name} a {jobs}?", "What is the square root of {w}?", "What color are {nouns}?",
        ]).format(**pick)
        return vary(rng, decorate(rng, ask) if rng.random() < 0.4 else ask), UNKNOWN


def decorate(rng, ask, always=False):
    """Politeness around a question; `always` insists on some."""
    while True:
        opener, closer = rng.choice(OPENERS), rng.choice(CLOSERS)
        if opener or closer or not always:
            return opener + ask + closer


def vary_end(rng, text):
    """Only the closing full stop: the case of what is to be copied matters."""
    return text[:-1] if text[-1] == "." and rng.random() < 0.4 else text
