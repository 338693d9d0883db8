"""Holds what each CUDA kernel takes of a multiprocessor to a table: registers, stack and shared memory, the most of its
instances. `resources.py FOLDER NVCC`: FOLDER has what ptxas said of each file; --write makes the table anew."""

import pathlib
import re
import subprocess
import sys

TABLE = pathlib.Path(__file__).with_name("resources.txt")
ARCHITECTURES = ("sm_80", "sm_90a")  # of the table; others may be built besides
SKIPPED = 77
COLUMNS = ("instances", "registers", "stack", "shared")


def read_build(folder):
    """(kernel, architecture) -> what its columns say."""
    entries = []
    for path in sorted(pathlib.Path(folder).glob("*.ptxas")):
        entries += re.findall(r"Compiling entry function '(\w+)' for '(\w+)'\n(?:.*\n)*?\s+(\d+) bytes stack frame.*\n"
                              r".*Used (\d+) registers(?:.*?, (\d+) bytes smem)?", path.read_text())
    names = subprocess.run(["c++filt"], input="\n".join(entry[0] for entry in entries), capture_output=True, text=True,
                           check=True).stdout.splitlines()
    found = {}
    for name, (_, architecture, stack, registers, shared) in zip(names, entries):
        kernel = re.search(r"(\w+)(?:<.*>)?\(", name.replace("(anonymous namespace)", ""))[1]
        seen = found.setdefault((kernel, architecture), [0, 0, 0, 0])
        seen[0] += 1
        seen[1:] = [max(pair) for pair in zip(seen[1:], (int(registers), int(stack), int(shared or 0)))]
    return {key: value for key, value in found.items() if key[1] in ARCHITECTURES}


def read_table():
    version, _, *lines = TABLE.read_text().splitlines()
    rows = [line.split() for line in lines]
    return version, {(row[0], row[1]): list(map(int, row[2:])) for row in rows}


def write_table(version, found):
    lines = [version, " ".join(("kernel", "architecture", *COLUMNS))]
    lines += [" ".join(map(str, (*key, *value))) for key, value in sorted(found.items())]
    TABLE.write_text("\n".join(lines) + "\n")


def differences(expected, found):
    """Registers may grow by a tenth: compilers differ by that from patch to patch. The rest is ours alone."""
    for key in sorted(expected.keys() | found.keys()):
        old, new = expected.get(key), found.get(key)
        if old is None or new is None:
            yield f"{' '.join(key)}: is {'not in the table' if old is None else 'in the table, but not built'}"
            continue
        for column, before, after in zip(COLUMNS, old, new):
            limit = before * 1.1 if column == "registers" else before
            if after > limit or (column == "instances" and after != before):
                yield f"{' '.join(key)}: {after} {column}, the table has {before}"


def main():
    folder, nvcc = sys.argv[1:3]
    version = re.search(r"release [\d.]+", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout)[0]
    found = read_build(folder)
    if "--write" in sys.argv:
        return write_table(version, found)
    of_version, expected = read_table()
    built = {architecture for _, architecture in found}
    if version != of_version or built != set(ARCHITECTURES):
        print(f"skipped: the table is of {of_version} for {' '.join(ARCHITECTURES)}, this build of {version} for "
              f"{' '.join(sorted(built))}")
        return SKIPPED
    problems = list(differences(expected, found))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
