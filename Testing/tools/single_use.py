"""Count the functions of the packages whose name is used once in their own file and nowhere else.

    python Testing/tools/single_use.py [--list]

Such a function makes a reader jump without telling more than its lines would. A use is a call or any other mention of
the name, in code; tests count as users of public names. Private names of other files are others. Names with two
underscores at each end are Python's own and left out.
"""

import argparse
import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("LNHGSegmentation", "LNHGTraining")


def mentions(tree: ast.AST) -> Counter[str]:
    """Return how often each name is mentioned, definitions left out."""
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found[node.id] += 1
        elif isinstance(node, ast.Attribute):
            found[node.attr] += 1
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names)
    return found


def single_use(root: Path) -> list[tuple[Path, str, int]]:
    """Return file, name and lines of each function that is used once in its own file and nowhere else."""
    files = sorted(path for name in PACKAGES for path in (root / name).rglob("*.py"))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    own = {path: mentions(tree) for path, tree in trees.items()}
    everywhere: Counter[str] = sum(own.values(), Counter())
    for path in sorted((root / "Testing").rglob("*.py")):
        everywhere.update(mentions(ast.parse(path.read_text(encoding="utf-8"))))
    return [
        (path, node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not (node.name.startswith("__") and node.name.endswith("__"))
        and own[path][node.name] == 1
        and (node.name.startswith("_") or everywhere[node.name] == 1)
    ]


def main() -> int:
    """Print the numbers, or the functions themselves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name them, the shortest first")
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="default: this repository")
    options = parser.parse_args()
    found = single_use(options.root)
    if options.list:
        for path, name, lines in sorted(found, key=lambda each: (each[0], each[2])):
            print(f"{path.relative_to(options.root)}: {name} ({lines} lines)")
    private = sum(name.startswith("_") for _path, name, _lines in found)
    print(f"{len(found)} functions are used once, {private} of them private")
    return 0


if __name__ == "__main__":
    sys.exit(main())
