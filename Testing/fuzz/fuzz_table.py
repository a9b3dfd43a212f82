"""The tables of the fuzzing and of the kills, written into a page of the docs."""

import re
from collections.abc import Sequence
from pathlib import Path


def write_fuzz_table(page: Path, rows: Sequence[dict], how: str, real: bool = False) -> None:
    """Write how the changed inputs ended, a row per kind.

    Args:
        page: between whose marks the table stands.
        rows: of the run.
        how: seed, processes and time.
        real: whether they went through the installed commands.
    """
    head = ["kind", "inputs", "done (0)", "refused (2)", "memory or disk (1)", "faults", "longest, s"]
    table = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        counts = [sum(row["status"] == status for row in own) for status in (0, 2, 1)]
        faults = sum(bool(row["fault"]) for row in own)
        table.append([kind, len(own), *counts, faults, f"{max(row['seconds'] for row in own):.1f}"])
    sums = [sum(row[column] for row in table) for column in range(1, 6)]
    table.append(["**all**", *sums, f"{max(row['seconds'] for row in rows):.1f}"])
    replace_part(page, "real" if real else "fuzz", f"{how}.\n\n{markdown(head, table)}")


def markdown(head: Sequence[str], table: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown.

    Args:
        head: of the columns.
        table: the rows.
    """
    lines = [head, ["---"] * len(head), *table]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def replace_part(page: Path, name: str, text: str) -> None:
    """Replace what stands between two marks of a page.

    Args:
        page: a Markdown file.
        name: of the marks, `<!-- name -->` and `<!-- /name -->`.
        text: to put there.
    """
    content = page.read_text(encoding="utf-8")
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(content):
        raise LookupError(f"{page} has no marks for {name}")
    page.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", content), encoding="utf-8")
