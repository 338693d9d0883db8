"""What the demo model is taught: each function here makes one kind of question and its answer from a seeded random source."""

import json
import pathlib
import random

HERE = pathlib.Path(__file__).parent
WORDS = json.loads((HERE / "words.json").read_text(encoding="utf-8"))
FACTS = json.loads((HERE / "facts.json").read_text(encoding="utf-8"))

MAX_OPERAND = 99  # of additions and subtractions
MAX_FACTOR = 12   # of multiplications

UNKNOWN = "I don't know. I am a tiny demo model: ask me about small arithmetic, Weft, or JSON."
TOO_LARGE = "I only add and subtract numbers from 0 to 99."
TABLE_TOO_LARGE = "I only know the times tables up to 12."
NO_DIVISION = "I can add, subtract and multiply, but not divide."

SYMBOLS = {"add": "+", "sub": "-", "mul": "*"}
JSON_KEYS = {"add": "sum", "sub": "difference", "mul": "product"}

ASKS = {
    "add": ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} = ?", "{a} + {b} =", "What's {a} + {b}?", "What is {a} plus {b}?",
            "What's {a} plus {b}?", "Add {a} and {b}.", "Calculate {a} + {b}.", "Compute {a} + {b}.", "How much is {a} + {b}?",
            "How much is {a} plus {b}?", "What is the sum of {a} and {b}?", "{a} plus {b}", "Please add {a} and {b}.",
            "Can you add {a} and {b}?", "What do you get when you add {a} and {b}?", "What is {a}+{b}?", "Solve {a} + {b}.",
            "I have {a} {n} and get {b} more. How many {n} do I have?", "There are {a} {n} and {b} more. How many in total?"],
    "sub": ["What is {a} - {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} = ?", "{a} - {b} =", "What's {a} - {b}?", "What is {a} minus {b}?",
            "What's {a} minus {b}?", "Subtract {b} from {a}.", "Calculate {a} - {b}.", "Compute {a} - {b}.", "How much is {a} - {b}?",
            "How much is {a} minus {b}?", "Take {b} away from {a}.", "{a} minus {b}", "What is {a}-{b}?", "Solve {a} - {b}.",
            "I have {a} {n} and give away {b}. How many {n} are left?", "There were {a} {n} and {b} are gone. How many are left?"],
    "mul": ["What is {a} * {b}?", "{a} * {b}", "{a}*{b}", "{a} * {b} = ?", "{a} * {b} =", "{a} x {b}", "What is {a} x {b}?",
            "What is {a} times {b}?", "What's {a} times {b}?", "Multiply {a} and {b}.", "Multiply {a} by {b}.", "Calculate {a} * {b}.",
            "Compute {a} * {b}.", "How much is {a} times {b}?", "{a} times {b}", "What is the product of {a} and {b}?",
            "What is {a} multiplied by {b}?", "{a} \u00d7 {b}", "What is {a} \u00d7 {b}?", "Solve {a} * {b}.",
            "There are {a} boxes with {b} {n} each. How many {n} are there?"],
}
JSON_ASKS = {
    "add": ["Give me the sum of {a} and {b} as JSON.", "What is {a} + {b}? Answer as JSON.", "Add {a} and {b}, as JSON.", "{a} + {b} as JSON",
            "Sum of {a} and {b} in JSON", "JSON: {a} + {b}", "Give the sum of {a} and {b} as JSON"],
    "sub": ["Give me the difference of {a} and {b} as JSON.", "What is {a} - {b}? Answer as JSON.", "Subtract {b} from {a}, as JSON.",
            "{a} - {b} as JSON", "Difference of {a} and {b} in JSON", "JSON: {a} - {b}"],
    "mul": ["Give me the product of {a} and {b} as JSON.", "What is {a} * {b}? Answer as JSON.", "Multiply {a} by {b}, as JSON.",
            "{a} * {b} as JSON", "Product of {a} and {b} in JSON", "JSON: {a} * {b}"],
}
OPENERS = ["", "", "", "", "", "", "", "Hi! ", "Please: ", "Question: ", "Hello. ", "Quick question: ", "Tell me: ", "Hey, ", "I have a question. ", "So, "]
CLOSERS = ["", "", "", "", "", "", "", "", " Thanks.", " Please.", " Thank you!", " Keep it short.", " I am curious.", " I am new here."]


def calculate(op, a, b):
    return {"add": a + b, "sub": a - b, "mul": a * b}[op]


def answer(op, a, b, style):
    """An arithmetic answer as the system prompt wants it: an equation, the bare number, or JSON."""
    result = calculate(op, a, b)
    if style == "number":
        return str(result)
    if style == "json":
        return json.dumps({JSON_KEYS[op]: result})
    return f"{a} {SYMBOLS[op]} {b} = {result}"


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
    """One source of questions. `held` is the set of number pairs and names that belong to it: the training source never
    uses them, the evaluation source uses nothing else."""

    def __init__(self, rng, held_pairs, held_words, evaluation):
        self.rng = rng
        self.held_pairs = held_pairs
        self.held_words = held_words
        self.held_list = sorted(held_words)
        self.evaluation = evaluation

    # -- arithmetic --

    def pair(self, op, tops=(20, 50, MAX_OPERAND)):
        """Two operands; of an addition or a subtraction, an unordered pair on this source's side of the split. Small numbers
        come more often, as they do in life; only small ones are subtracted to below zero."""
        while True:
            top = MAX_FACTOR if op == "mul" else self.rng.choice(tops)
            a, b = self.rng.randint(0, top), self.rng.randint(0, top)
            if op == "sub" and a < b and (top > 20 or self.rng.random() < 0.7):
                a, b = b, a
            if op == "mul" or ((min(a, b), max(a, b)) in self.held_pairs) == self.evaluation:
                return a, b

    def direct_tops(self):
        """The largest operands where the result comes without the equation, which is harder; tested up to 20."""
        return (20,) if self.evaluation else (20, 20, 20, MAX_OPERAND)

    def arithmetic(self, op, style="plain"):
        a, b = self.pair(op) if style == "plain" else self.pair(op, self.direct_tops())
        asks = ASKS[op] if self.evaluation or self.rng.random() < 0.6 else ASKS[op][:4]  # short ones, for more of them in the same time
        ask = self.rng.choice(asks).format(a=a, b=b, n=self.rng.choice(WORDS["nouns"]))
        return vary(self.rng, ask), answer(op, a, b, style), (op, a, b)

    def json_arithmetic(self):
        op = self.rng.choice(["add", "add", "sub", "mul"])
        a, b = self.pair(op, self.direct_tops())
        if op == "sub" and a < b:
            a, b = b, a
        return vary(self.rng, self.rng.choice(JSON_ASKS[op]).format(a=a, b=b)), answer(op, a, b, "json")

    def beyond(self):
        """Arithmetic that the model was not taught, and says so."""
        kind = self.rng.choice(["large", "table", "division"])
        small, large = self.rng.randint(0, 99), self.rng.choice([self.rng.randint(100, 999), self.rng.randint(100, 99999)])
        if kind == "division":
            a, b = self.rng.randint(1, 99), self.rng.randint(1, 12)
            ask = self.rng.choice(["What is {a} / {b}?", "{a} / {b}", "Divide {a} by {b}.", "What is {a} divided by {b}?", "{a} divided by {b}",
                                   "How much is {a} divided by {b}?"])
            return vary(self.rng, ask.format(a=a, b=b)), NO_DIVISION
        op = "mul" if kind == "table" else self.rng.choice(["add", "sub"])
        if kind == "table":
            large = self.rng.choice([self.rng.randint(13, 99), self.rng.randint(13, 999)])
        a, b = self.rng.choice([(small, large), (large, small), (large, large + self.rng.randint(0, 50))])
        ask = self.rng.choice(ASKS[op][:17]).format(a=a, b=b, n="")
        return vary(self.rng, ask), TABLE_TOO_LARGE if kind == "table" else TOO_LARGE

    # -- words --

    def made_up_word(self):
        """A word that is in no dictionary, so that the model learns to copy and not to remember."""
        while True:
            syllables = self.rng.randint(1, 3)
            word = "".join(self.rng.choice("bcdfghjklmnprstvwz") + self.rng.choice(["a", "e", "i", "o", "u", "ai", "ea"]) for _ in range(syllables))
            word += self.rng.choice(["", "n", "r", "s", "l", "t", "ck", "nd", "m", "x"])
            if len(word) > 2 and (word in self.held_words) == self.evaluation:
                return word

    def proper(self, pool):
        if self.evaluation:
            return self.rng.choice(WORDS[pool]) if self.rng.random() < 0.4 else self.rng.choice(self.held_list).capitalize()
        return self.rng.choice(WORDS[pool]) if self.rng.random() < 0.5 else self.made_up_word().capitalize()

    def word(self):
        return self.rng.choice(WORDS["plain_words"]) if self.rng.random() < 0.5 else (
            self.rng.choice(self.held_list) if self.evaluation else self.made_up_word())

    # -- JSON --

    def extraction(self):
        return self.rng.choice([self.person, self.person, self.goods, self.word_list, self.settings])()

    def person(self):
        rng = self.rng
        name, age, city, job = self.proper("names"), rng.randint(1, 99), self.proper("cities"), rng.choice(WORDS["jobs"])
        ask, fields = rng.choice([
            ("Describe {name}, {age}, from {city} as JSON.", "nac"), ("Describe {name}, {age}, from {city}, as JSON.", "nac"),
            ("As JSON: {name} is {age} years old and lives in {city}.", "nac"), ("{name} is {age} and lives in {city}. Write that as JSON.", "nac"),
            ("Make JSON: {name}, {age}, {city}", "nac"), ("Turn this into JSON: {name} from {city} is {age} years old.", "nac"),
            ("Write JSON for {name}, age {age}, city {city}.", "nac"), ("JSON for {name}, {age}, from {city}", "nac"),
            ("Describe {name}, {age}, as JSON.", "na"), ("{name} is {age} years old. Write that as JSON.", "na"),
            ("As JSON: {name} lives in {city}.", "nc"), ("Describe {name} from {city} as JSON.", "nc"),
            ("Describe {name}, a {job} from {city}, as JSON.", "njc"), ("As JSON: {name} is a {job} in {city}.", "njc"),
            ("As JSON: {name}, {age}, {job}", "naj"), ("Describe {name}, {age}, a {job}, as JSON.", "naj")])
        values = {"n": ("name", name), "a": ("age", age), "c": ("city", city), "j": ("job", job)}
        return vary_end(rng, ask.format(name=name, age=age, city=city, job=job)), json.dumps(dict(values[f] for f in fields))

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

    def word_list(self):
        rng = self.rng
        words = rng.sample(WORDS["colors"], rng.randint(2, 4)) if rng.random() < 0.4 else [self.word() for _ in range(rng.randint(2, 4))]
        listed = ", ".join(words[:-1]) + " and " + words[-1] if rng.random() < 0.5 else ", ".join(words)
        ask = rng.choice(["List {w} as JSON.", "Make a JSON list of {w}.", "As a JSON list: {w}", "{w} as a JSON list", "Write {w} as a JSON list."])
        return vary_end(rng, ask.format(w=listed)), json.dumps(words)

    def settings(self):
        rng = self.rng
        keys = rng.sample(WORDS["keys"], rng.randint(1, 3))
        values = [rng.randint(0, 9999) if rng.random() < 0.4 else self.word() for _ in keys]
        shape = rng.choice(["{k} = {v}", "{k}={v}", "{k} {v}", "{k}: {v}"])
        pairs = rng.choice([", ", " and "]).join(shape.format(k=k, v=v) for k, v in zip(keys, values))
        ask = rng.choice(["Make JSON with {p}.", "As JSON: {p}", "Write {p} as JSON.", "JSON with {p}", "{p} as JSON"])
        return vary_end(rng, ask.format(p=pairs)), json.dumps(dict(zip(keys, values)))

    # -- copying and counting --

    def repeat(self):
        words = " ".join(self.word() for _ in range(self.rng.randint(1, 6)))
        ask = self.rng.choice(["Repeat: {w}", "Say: {w}", "Repeat after me: {w}", "Please repeat: {w}", "Echo: {w}", "Say {w}", "Repeat {w}"])
        return ask.format(w=words), words

    def count(self):
        low = self.rng.randint(0, 60)
        high = low + self.rng.randint(2, 15)
        if self.rng.random() < 0.3:
            ask = self.rng.choice(["Count down from {high} to {low}.", "Count backwards from {high} to {low}."])
            numbers = range(high, low - 1, -1)
        else:
            ask = self.rng.choice(["Count from {low} to {high}.", "Count {low} to {high}.", "Please count from {low} to {high}.",
                                   "List the numbers from {low} to {high}."])
            numbers = range(low, high + 1)
        return vary(self.rng, ask.format(low=low, high=high)), ", ".join(map(str, numbers))

    # -- facts, and their absence --

    def fact(self, kind):
        fact = self.rng.choice([f for f in FACTS if f.get("kind", "weft") == kind])
        if self.evaluation and self.rng.random() < 0.5:
            return vary(self.rng, self.rng.choice(fact["held_out"])), fact["answer"]
        ask = self.rng.choice(fact["asks"])
        if self.evaluation:  # the plain questions are what newcomers ask, so training must keep them
            ask = decorate(self.rng, ask, always=True)
        elif self.rng.random() < 0.6:
            ask = decorate(self.rng, ask)
        return vary(self.rng, ask), fact["answer"]

    def unknown(self):
        rng = self.rng
        pick = {key: rng.choice(WORDS[key]) for key in ("countries", "topics", "languages", "works", "plain_words", "colors", "nouns", "jobs")}
        pick["name"], pick["city"], pick["w"] = self.proper("names"), self.proper("cities"), self.word()
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
