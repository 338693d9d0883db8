#!/usr/bin/env python3
"""Writes unicode_class_tables.inc and unicode_nfc_tables.inc beside this script.

The tables follow the `tokenizers` package (0.23), not one Unicode version: its regex engine, its word class and its
normaliser each carry their own, and a model was trained through all three. Needs Python 3.11+ and `pip install tokenizers`.
"""
import pathlib
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

HERE = pathlib.Path(__file__).parent
HEADER = "// Written by unicode_tables.py; don't edit.\n"
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xAC00 + 11172)


def matched_by(pattern):
    """Code points that the package's regex engine puts in a one-character class."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed")
    unmatched = set()
    for i in range(0, len(CODE_POINTS), 4096):
        text = "".join(map(chr, CODE_POINTS[i:i + 4096]))
        for piece, _ in splitter.pre_tokenize_str(text):
            unmatched.update(map(ord, piece))
    return set(CODE_POINTS) - unmatched


def word_characters():
    """Code points of \\w as added tokens with single_word see it: those that join a word."""
    splitter = pre_tokenizers.Whitespace()
    return {c for c in CODE_POINTS if len(splitter.pre_tokenize_str("a" + chr(c))) == 1} - matched_by(r"\s")


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def array(declaration, rows):
    lines, line = [], " "
    for row in rows:
        cell = " {" + ", ".join(f"0x{v:x}" for v in row) + "},"
        if len(line) + len(cell) > 120:
            lines.append(line)
            line = " "
        line += cell
    return f"{declaration} = {{\n" + "\n".join(lines + [line]) + "\n};\n"


def nfc_tables():
    nfd, nfc = normalizers.NFD(), normalizers.NFC()
    decompositions, compositions, classes = [], [], []
    for c in CODE_POINTS:
        full = nfd.normalize_str(chr(c))
        if full != chr(c) and c not in HANGUL:
            decompositions.append([c, *map(ord, full)])
        pair = unicodedata.decomposition(chr(c)).split()
        if len(pair) == 2 and not pair[0].startswith("<") and c not in HANGUL:
            first, second = (int(x, 16) for x in pair)
            if nfc.normalize_str(chr(first) + chr(second)) == chr(c):
                compositions.append([first, second, c])
        ccc = unicodedata.combining(chr(c))
        # Classes newer than the package's own data stay zero: it doesn't reorder such a mark around its neighbours.
        lower, higher = "x\u0334" + chr(c), "x" + chr(c) + "\u0334"
        if ccc > 1 and nfd.normalize_str(higher) == lower or ccc == 1 and nfd.normalize_str("x\u0301" + chr(c))[1] == chr(c):
            classes.append((c, ccc))
    class_ranges = []
    for c, ccc in classes:
        if class_ranges and class_ranges[-1][1] == c - 1 and class_ranges[-1][2] == ccc:
            class_ranges[-1][1] = c
        else:
            class_ranges.append([c, c, ccc])
    longest = max(map(len, decompositions))
    return (HEADER
            + "// Code point, then its full canonical decomposition, padded with zeros; Hangul is arithmetic.\n"
            + array(f"constexpr char32_t kDecompositions[][{longest}]", decompositions)
            + "// First, second, composite.\n"
            + array("constexpr char32_t kCompositions[][3]", sorted(compositions))
            + "// First and last code point, canonical combining class.\n"
            + array("constexpr char32_t kCombiningClasses[][3]", class_ranges))


def class_tables():
    tables = [("kLetterRanges", r"\p{L}", matched_by(r"\p{L}")), ("kNumberRanges", r"\p{N}", matched_by(r"\p{N}")),
              ("kSpaceRanges", r"\s", matched_by(r"\s")), ("kWordRanges", r"\w", word_characters())]
    return HEADER + "".join(f"// {pattern}: first and last code point.\n" + array(f"constexpr char32_t {name}[][2]", ranges(points))
                            for name, pattern, points in tables)


(HERE / "unicode_class_tables.inc").write_text(class_tables())
(HERE / "unicode_nfc_tables.inc").write_text(nfc_tables())
