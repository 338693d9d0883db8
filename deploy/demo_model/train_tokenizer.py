#!/usr/bin/env python3
"""Trains the demo model's tokenizer: byte-level BPE in which every digit is a token of its own.

Reads train.jsonl (from make_corpus.py) and writes tokenizer.json and tokenizer_config.json into --out. The chat template is
chat_template.jinja beside this file; it is written by hand. Training is deterministic: same corpus, same file.
"""

import argparse
import collections
import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCAB_SIZE = 1536
MIN_WORD_COUNT = 40
SPECIAL_TOKENS = ["<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]

# Contractions; words with the space before them; single digits; punctuation; line breaks; other spaces. One digit a token makes
# a number look the same wherever it stands, which is what arithmetic needs.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def frequent_words(corpus: pathlib.Path, limit: int, split) -> list[str]:
    """Every word of the first conversations, as often as it occurs, without the space or sign before its letters and without
    the rare words. So no merge joins a space to a letter, and a word is the same tokens after a space as after a quote: to copy
    a name from a sentence into JSON is then to repeat its tokens, which a small model learns for names it has never seen."""
    counts = collections.Counter()
    with corpus.open(encoding="utf-8") as lines:
        for _, line in zip(range(limit), lines):
            for message in json.loads(line)["messages"]:
                for word, _ in split.pre_tokenize_str(message["content"]):
                    counts[word[1:] if word[1:].isalpha() and not word[0].isalpha() else word] += 1
    return [word for word in sorted(counts) for _ in range(counts[word]) if counts[word] >= MIN_WORD_COUNT]


def train(corpus: pathlib.Path, limit: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        split,
        # The split is done above, so ByteLevel only maps bytes to printable characters.
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(frequent_words(corpus, limit, split), trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=4,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # all 256 bytes: any text round-trips
        show_progress=False,
    ))
    bos = ("<|bos|>", tokenizer.token_to_id("<|bos|>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A <|bos|> $B:1", special_tokens=[bos])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="train.jsonl")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    parser.add_argument("--limit", type=int, default=60000, help="conversations to learn merges from")
    args = parser.parse_args()

    tokenizer = train(args.corpus, args.limit)
    tokenizer.save(str(args.out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (args.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
