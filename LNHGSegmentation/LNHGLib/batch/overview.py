"""The overview of a batch: one HTML file with pictures, sortable, that needs neither server nor network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

COLUMNS = (  # key, heading, whether it is a number
    ("case", "Case", False),
    ("status", "Status", False),
    ("nodules", "Nodules", True),
    ("longest_mm", "Longest axis, mm", True),
    ("best_score", "Highest score", True),
    ("seconds", "Time, s", True),
    ("peak_memory_mb", "Memory, MB", True),
    ("reason", "Reason", False),
)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 1.5rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; }
p { margin: .2rem 0 .8rem; opacity: .8; }
input { font: inherit; padding: .3rem .5rem; width: 18rem; max-width: 100%; }
table { border-collapse: collapse; margin-top: .8rem; }
th, td { padding: .35rem .7rem; text-align: left; border-bottom: 1px solid #8884; vertical-align: middle; }
th { position: sticky; top: 0; background: Canvas; white-space: nowrap; }
th button { font: inherit; font-weight: 600; border: 0; background: none; color: inherit; cursor: pointer; padding: 0; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.reason { max-width: 34rem; }
tr.failed td.status { color: #c62828; font-weight: 600; }
img { display: block; width: 96px; height: 96px; }
@media (prefers-color-scheme: dark) { tr.failed td.status { color: #ff8a80; } }
"""

SCRIPT = """
"use strict";
const table = document.getElementById("cases");
const heads = Array.from(table.querySelectorAll("th[data-key]"));
const body = table.querySelector("tbody");
const rows = Array.from(body.querySelectorAll("tr"));
const filter = document.getElementById("filter");
const shown = document.getElementById("shown");
const text = new Intl.Collator(undefined, { numeric: true });

function value(row, key) { return row.querySelector("td." + key).dataset.value; }

function sort(key, direction) {
  const head = heads.find(each => each.dataset.key === key);
  if (!head) return;
  const numeric = head.dataset.number === "1";
  const sign = direction === "descending" ? -1 : 1;
  const ordered = rows.slice().sort((a, b) => {
    const x = value(a, key), y = value(b, key);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (numeric ? Number(x) - Number(y) : text.compare(x, y));
  });
  for (const row of ordered) body.appendChild(row);
  for (const each of heads) each.setAttribute("aria-sort", each === head ? direction : "none");
}

function show() {
  const wanted = filter.value.trim().toLowerCase();
  let count = 0;
  for (const row of rows) {
    row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
    if (!row.hidden) count += 1;
  }
  shown.textContent = count + " of " + rows.length + " shown";
}

function remember(key, direction) {
  const state = new URLSearchParams();
  if (key) state.set("sort", key + "," + direction);
  if (filter.value) state.set("filter", filter.value);
  history.replaceState(null, "", "#" + state.toString());
}

for (const head of heads) {
  head.querySelector("button").addEventListener("click", () => {
    const first = head.dataset.number === "1" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    sort(head.dataset.key, direction);
    remember(head.dataset.key, direction);
  });
}
filter.addEventListener("input", () => {
  const head = heads.find(each => each.getAttribute("aria-sort") !== "none");
  show();
  remember(head && head.dataset.key, head && head.getAttribute("aria-sort"));
});

const state = new URLSearchParams(location.hash.slice(1));
if (state.get("sort")) sort(...state.get("sort").split(","));
filter.value = state.get("filter") || "";
show();
"""


def page(title: str, rows: Sequence[Mapping[str, object]], pictures: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        title: a sentence above the table.
        rows: a mapping a case, with the columns of cases.csv.
        pictures: JPEG, base64, by case id; of the cases that are done.
    """
    counts = Counter(str(row["status"]) for row in rows)
    told = f"{len(rows)} cases: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    heads = "".join(_head(*column) for column in COLUMNS)
    lines = "\n".join(_row(row, pictures.get(str(row["case"]))) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width">
<title>LNHG batch</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{escape(told)}. Click a heading to sort; a picture or a case opens its preview. Research software, not for
diagnosis.</p>
<input id="filter" type="search" placeholder="Show only cases with&hellip;" aria-label="Show only cases with">
<span id="shown"></span>
<table id="cases">
<thead><tr><th></th>{heads}</tr></thead>
<tbody>
{lines}
</tbody>
</table>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _head(key: str, heading: str, number: bool) -> str:
    marks = f'data-key="{key}" data-number="{int(number)}" aria-sort="{"ascending" if key == "case" else "none"}"'
    return f'<th scope="col" {marks}><button type="button">{escape(heading)}</button></th>'


def _row(row: Mapping[str, object], picture: str | None) -> str:
    seconds = [float(str(row[f"{step}_s"])) for step in ("read", "compute", "write") if row.get(f"{step}_s")]
    values = {**row, "seconds": round(sum(seconds), 1) if seconds else ""}
    link = f"cases/{quote(str(row['case']))}/preview.png" if picture is not None else None
    image = f'<img alt="" src="data:image/jpeg;base64,{picture}">' if picture else ""
    cells = "".join(_cell(key, values.get(key, ""), number, link) for key, _, number in COLUMNS)
    return f'<tr class="{escape(str(row["status"]))}"><td>{_linked(image, link)}</td>{cells}</tr>'


def _cell(key: str, value: object, number: bool, link: str | None) -> str:
    shown = f"{value:.2f}" if key in ("best_score", "longest_mm") and isinstance(value, float) else str(value)
    inner = _linked(escape(shown), link) if key == "case" else escape(shown)
    return f'<td class="{key}{" number" if number else ""}" data-value="{escape(str(value))}">{inner}</td>'


def _linked(inner: str, link: str | None) -> str:
    return f'<a href="{link}">{inner}</a>' if link and inner else inner
