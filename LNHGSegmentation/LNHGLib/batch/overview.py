"""The overview of a batch: one HTML file with pictures, sortable, that needs neither server nor network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from urllib.parse import quote

from LNHGLib.measurement import score_scale
from LNHGLib.paths import HTML

COLUMNS = (  # key, heading, whether it is a number
    ("case", "Case", False),
    ("status", "Status", False),
    ("nodules", "Nodules", True),
    ("longest_mm", "Longest axis, mm", True),
    ("best_score", "Highest {score}", True),
    ("seconds", "Time, s", True),
    ("peak_memory_mb", "Memory, MB", True),
    ("reason", "Reason", False),
)


def page(title: str, rows: Sequence[Mapping[str, object]], pictures: Mapping[str, str]) -> str:
    """Return the page, made from Resources/Html/overview.html.

    Args:
        title: A sentence above the table.
        rows: A mapping per case, with the columns of cases.csv.
        pictures: JPEG, base64, by case id; of the cases that are done.
    """
    counts = Counter(str(row["status"]) for row in rows)
    summary = f"{len(rows)} cases: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    scales = {score_scale.scale_of(row) for row in rows if "best_score" in row}
    score = score_scale.NAMES[scales.pop() if len(scales) == 1 else score_scale.MODEL].lower()
    headings = [(key, escape(heading.format(score=score)), number) for key, heading, number in COLUMNS]
    heads = "".join(
        f'<th scope="col" data-key="{key}" data-number="{int(number)}" '
        f'aria-sort="{"ascending" if key == "case" else "none"}"><button type="button">{heading}</button></th>'
        for key, heading, number in headings
    )
    lines = "\n".join(_table_row(row, pictures.get(str(row["case"]))) for row in rows)
    template = Template((HTML / "overview.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), summary=escape(summary), heads=heads, rows=lines)


def _table_row(row: Mapping[str, object], picture: str | None) -> str:
    """Return the HTML of one case; its name and its picture, if it has one, open the preview."""
    seconds = [float(str(row[f"{step}_s"])) for step in ("read", "compute", "write") if row.get(f"{step}_s")]
    values = {**row, "seconds": round(sum(seconds), 1) if seconds else ""}
    link, end = "", ""
    if picture is not None:
        link, end = f'<a href="cases/{quote(str(row["case"]))}/preview.png">', "</a>"
    image = f'{link}<img alt="" src="data:image/jpeg;base64,{picture}">{end}' if picture else ""
    cells = [f"<td>{image}</td>"]
    for key, _, number in COLUMNS:
        value = values.get(key, "")
        shown = f"{value:.2f}" if key in ("best_score", "longest_mm") and isinstance(value, float) else str(value)
        inner = f"{link}{escape(shown)}{end}" if key == "case" and shown else escape(shown)
        cells.append(f'<td class="{key}{" number" if number else ""}" data-value="{escape(str(value))}">{inner}</td>')
    return f'<tr class="{escape(str(row["status"]))}">{"".join(cells)}</tr>'
