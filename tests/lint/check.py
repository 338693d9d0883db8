"""Checks a tree against the rules of the house: `check.py [ROOT]`. One line a finding; exit status 1 if there is any."""

import sys

from rules import RULES
from tree import Tree


def main(root: str) -> int:
    tree = Tree(root)
    if not tree.files:
        print(f"{root}: no files", file=sys.stderr)
        return 1
    count = 0
    for name, rule in RULES.items():
        for finding in rule(tree):
            print(f"{finding.path}:{finding.line}: {finding.message} [{name}: {rule.__doc__.splitlines()[0]}]")
            count += 1
    print(f"{len(RULES)} rules, {len(tree.files)} files, {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
