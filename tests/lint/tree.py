"""The repository as the rules see it: file names, text, C++ code without comments, and includes."""

import functools
import os
import pathlib
import re
import subprocess
from typing import Iterator, NamedTuple

CPP = (".h", ".cc", ".cu", ".cuh", ".inc")
HEADERS = (".h", ".cuh")

# What a build or an editor leaves behind, for a tree without git to say so.
_LEFT_BEHIND = re.compile(r"^(\.git|\.venv|\.cache|__pycache__|build(-.*)?)$")

# A number comes first: its digit separators are not quotes.
_TOKEN = re.compile(
    r"""
    (?P<number> \b\d[\w.']* )
  | (?P<comment> //[^\n]* | /\*.*?\*/ )
  | (?P<raw> R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)" )
  | (?P<string> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    """,
    re.VERBOSE | re.DOTALL,
)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(<[^>]+>|"[^"]+")', re.MULTILINE)


class Include(NamedTuple):
    line: int
    target: str
    quoted: bool


class Tree:
    """The files under `root` that are, or could be, in git. Reads each at most once."""

    def __init__(self, root: str | os.PathLike):
        self.root = pathlib.Path(root).resolve()
        self.files = sorted(_git_files(self.root) or _walk(self.root))

    def under(self, *folders: str, suffixes: tuple[str, ...] = CPP) -> Iterator[str]:
        """Files in these folders, or anywhere if none is named, whose names end so."""
        for path in self.files:
            if path.endswith(suffixes) and (not folders or path.startswith(tuple(f + "/" for f in folders))):
                yield path

    @functools.cache
    def text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8", errors="replace")

    @functools.cache
    def code(self, path: str) -> str:
        """C++ with each comment and the inside of each literal blanked; lines keep their numbers."""
        return _TOKEN.sub(lambda m: m[0] if m["number"] else re.sub(r"[^\n]", " ", m[0]), self.text(path))

    @functools.cache
    def includes(self, path: str) -> list[Include]:
        text = self.text(path)
        return [Include(line_of(text, m.start(1)), m[1][1:-1], m[1][0] == '"') for m in _INCLUDE.finditer(text)]

    def size(self, path: str) -> int:
        return (self.root / path).stat().st_size


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _git_files(root: pathlib.Path) -> list[str]:
    """Nothing where git is not there, or does not keep this very folder."""
    if not (root / ".git").exists():
        return []
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [path for path in set(listed.split("\0")) if path and (root / path).is_file()]


def _walk(root: pathlib.Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not _LEFT_BEHIND.match(name)]
        found += [(pathlib.Path(folder) / name).relative_to(root).as_posix() for name in names]
    return found
