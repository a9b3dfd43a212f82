"""The tables of a batch, made anew from the records of its cases: equal results give equal files."""

import csv
import io
from collections.abc import Mapping, Sequence

from LNHGLib.batch import overview
from LNHGLib.batch.case import Case
from LNHGLib.batch.store import DONE, Record, Store, write_whole
from LNHGLib.results.files import COLUMNS

PENDING = "pending"
STEPS = ("read", "compute", "write")
CASE_COLUMNS = (
    *(
        "case",
        "status",
        "reason",
        "nodules",
        "best_score",
        "longest_mm",
        "warnings",
        "source",
        "series_uid",
        "attempts",
    ),
    *(f"{step}_s" for step in STEPS),
    "peak_memory_mb",
)
NODULE_COLUMNS = ("case", *COLUMNS)


def write_tables(store: Store, cases: Sequence[Case], records: Mapping[str, Record], title: str) -> None:
    """Write cases.csv (a row a case), cohort.csv (a row a nodule) and overview.html.

    Args:
        store: where the results are.
        cases: all cases, in the tables' order.
        records: of the cases that ended, by id.
        title: what the overview says above its table.
    """
    rows = [_case_row(case, records.get(case.id)) for case in cases]
    write_whole(store.out / "cases.csv", _csv(CASE_COLUMNS, rows))
    done = [case.id for case in cases if case.id in records and records[case.id].status == DONE]
    nodules = [row for case_id in done for row in _nodule_rows(store, case_id)]
    write_whole(store.out / "cohort.csv", _csv(NODULE_COLUMNS, nodules))
    pictures = {case_id: records[case_id].summary.get("thumbnail", "") for case_id in done}
    write_whole(store.out / "overview.html", overview.page(title, rows, pictures))


def _case_row(case: Case, record: Record | None) -> dict[str, object]:
    row = {"case": case.id, "source": case.source, "series_uid": case.series_uid or "", "status": PENDING}
    if record is None:
        return row
    row |= {"status": record.status, "reason": record.reason, "attempts": record.attempts}
    row |= {f"{step}_s": seconds for step, seconds in record.seconds.items()}
    row["peak_memory_mb"] = "" if record.peak_memory_mb is None else record.peak_memory_mb
    summary = {name: record.summary[name] for name in ("nodules", "best_score", "longest_mm") if name in record.summary}
    return row | summary | {"warnings": " ".join(record.summary.get("warnings", []))}


def _nodule_rows(store: Store, case_id: str) -> list[dict[str, object]]:
    with (store.folder(case_id) / "nodules.csv").open(newline="", encoding="utf-8") as file:
        return [{"case": case_id, **row} for row in csv.DictReader(file)]


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: _safe(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _safe(value: object) -> object:
    """Keep a spreadsheet from taking a scan's name for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "@", "\t") else value
