"""Collects the sentences of all errors for the user from the source, with the longest plausible values filled in."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ERRORS = ("InputError", "WorkError", "DiskError")
MAX_LETTERS = 200

RELAYED = {  # what passes on another error's sentence, or what argparse says
    "LNHGLib/__main__.py": "message",
    "LNHGTrainingLib/__main__.py": "message",
    "LNHGLib/models/card.py": "error",
}

LENGTHS = {
    r"^(quoted|shown)\(.*, 12\)$": 12,
    r"^(quoted|shown)\(.*, 20\)$": 20,
    r"^(quoted|shown)\(.*UID_LETTERS\)$": 64,
    r"^(quoted|shown)\(": 30,
    r"^(nearest|listed)\(": 60,
    r"path|folder|file|out\b|where|source|table|data\b|list_|location|parent|place|result|scheduler|case\b|dicom": 0,
    r"\.(shape|size)\b|len\(|count|number|free|mb\b|:[.,]?\d*[defg%]": 6,
    r"join\(": 45,
    r"error": 30,
    r"address": 24,
    r"uid": 64,
}
"""Letters that stand for a value, by what its expression looks like; paths do not count."""

OTHERWISE = 14
MISSING = r"--\w|\b(no|not|nobody|nothing|without|before|empty|only|none|more than|leave)\b"
"""Where a sentence holds no value, it says by one of these words what is missing or too much."""


@dataclass(frozen=True)
class Sentence:
    """What one place in the source says: `template` has the values as {expressions}, `length` counts them too."""

    where: str
    template: str
    length: int

    def faults(self) -> list[str]:
        """Return what is wrong with it."""
        fixed = re.sub(r"\{[^{}]*\}", "X", self.template)
        rules = (
            (self.length > MAX_LETTERS, f"has {self.length} letters, expected at most {MAX_LETTERS}"),
            (not fixed.endswith("."), "does not end with a period"),
            (re.search(r"[.!?] [A-Z]", fixed), "is more than one sentence"),
            ("{" not in self.template and not re.search(MISSING, fixed, re.I), "does not name what was met"),
            (re.search(r"![rsa]\}", self.template), "quotes in full, expected LNHGLib.errors.quoted"),
            (";" not in fixed, "does not say after a semicolon what to do"),
        )
        return [f"{self.where}: {fault}: {self.template}" for broken, fault in rules if broken]


def sentences(root: Path) -> Iterator[Sentence]:
    """Yield the sentences of all errors that the modules raise.

    Args:
        root: the repository.

    Raises:
        LookupError: a sentence cannot be told from the source.
    """
    for path in sorted(root.glob("LNHG*/LNHG*Lib/**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = path.relative_to(root).parts[1:]
        for call, scope in _calls(tree):
            where = f"{'/'.join(module)}:{call.lineno}"
            known = _assigned(tree.body) | _assigned(scope.body if scope is not tree else [])
            for template in _templates(call.args[0], known, _functions(tree), root):
                relayed = RELAYED.get("/".join(module))
                if relayed and "{" + relayed + "}" in template:
                    continue
                yield Sentence(where, template, _length(template))


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Yield the calls that make an error, each with the innermost function around it."""
    scopes: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while scopes:
        node, scope = scopes.pop()
        if isinstance(node, ast.FunctionDef):
            scope = node
        name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
        if name in ERRORS and node.args:
            yield node, scope
        scopes += [(child, scope) for child in ast.iter_child_nodes(node)]


def _assigned(body: list[ast.stmt]) -> dict[str, list[ast.expr]]:
    """Return the expressions that names are given in statements, nested ones too but for those of functions."""
    found: dict[str, list[ast.expr]] = {}
    stack = list(body)
    while stack:
        node = stack.pop(0)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            stack += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler)]
    return found


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _templates(
    node: ast.expr, known: dict[str, list[ast.expr]], functions: dict[str, ast.FunctionDef], root: Path
) -> list[str]:
    """Return what an expression of text can be, with {expression} for each value."""
    again = (known, functions, root)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        parts = [_values(part, known, again) for part in node.values]
        return ["".join(texts) for texts in _product(parts)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [a + b for a in _templates(node.left, *again) for b in _templates(node.right, *again)]
    if isinstance(node, ast.IfExp):
        return _templates(node.body, *again) + _templates(node.orelse, *again)
    if isinstance(node, ast.Name) and node.id in known:
        return [text for value in known[node.id] for text in _templates(value, *again)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        function = functions[node.func.id]
        returned = [each.value for each in ast.walk(function) if isinstance(each, ast.Return) and each.value]
        inner = known | _assigned(function.body)
        return [text for value in returned for text in _templates(value, inner, functions, root)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        values = [ast.unparse(value) for value in node.args]
        return [_filled(text, values) for text in _templates(node.func.value, *again)]
    if isinstance(node, ast.Attribute) and node.attr.isupper():
        return [text for text in [_constant(root, node)] if text]
    if isinstance(node, ast.Subscript):
        return []  # one of a list of sentences that were made elsewhere
    raise LookupError(f"line {node.lineno}: {ast.unparse(node)} is no text that the source tells")


def _values(part: ast.expr, known: dict, again: tuple) -> list[str]:
    """Return what a piece of an f-string can be: its text, a constant's, or its expression in braces."""
    if isinstance(part, ast.Constant):
        return [str(part.value)]
    value = part.value
    if isinstance(value, ast.Name) and value.id.isupper() and value.id in known:
        try:
            return [str(ast.literal_eval(each)) for each in known[value.id]]
        except ValueError:
            return ["{" + ast.unparse(value) + "}"]
    conversion = f"!{chr(part.conversion)}" if part.conversion > 0 else ""
    spec = "".join(ast.unparse(part.format_spec)[2:-1]) if part.format_spec else ""
    return [
        "{" + ast.unparse(value).replace("{", "(").replace("}", ")") + conversion + (f":{spec}" if spec else "") + "}"
    ]


def _product(parts: list[list[str]]) -> Iterator[list[str]]:
    if not parts:
        yield []
        return
    for rest in _product(parts[1:]):
        for first in parts[0]:
            yield [first, *rest]


def _filled(template: str, values: list[str]) -> str:
    for value in values:
        template = template.replace("{}", "{" + value + "}", 1)
    return template


def _constant(root: Path, node: ast.Attribute) -> str | None:
    """Return the text of a constant of another module, which is imported under its own name."""
    module = ast.unparse(node.value).split(".")[-1]
    for path in root.glob(f"LNHG*/LNHG*Lib/**/{module}.py"):
        for value in _assigned(ast.parse(path.read_text(encoding="utf-8")).body).get(node.attr, []):
            return str(ast.literal_eval(value))
    return None


def _length(template: str) -> int:
    """Return the letters of a sentence whose values are as long as they plausibly get."""
    values = re.findall(r"\{([^{}]*)\}", template)
    return len(re.sub(r"\{[^{}]*\}", "", template)) + sum(map(_value_length, values))


def _value_length(expression: str) -> int:
    return next((n for pattern, n in LENGTHS.items() if re.search(pattern, expression, re.I)), OTHERWISE)
