"""The tables of a batch, made anew from the records of its cases: equal results give equal files."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from LNHGLib.batch import overview
from LNHGLib.batch.case import Case
from LNHGLib.batch.store import DONE, Record, Store
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.text import csv_text, read_csv, write_text
from LNHGLib.measurement.score_scale import MODEL, scale_of
from LNHGLib.results.files import COLUMNS

PENDING = "pending"
CASE_COLUMNS = (
    *("case", "status", "reason", "nodules", "best_score", "score_scale", "longest_mm", "warnings"),
    *("source", "series_uid", "attempts", "read_s", "compute_s", "write_s", "peak_memory_mb"),
)
NODULE_COLUMNS = ("case", *COLUMNS)


def write_tables(store: Store, cases: Sequence[Case], records: Mapping[str, Record], title: str) -> None:
    """Write cases.csv (a row per case), cohort.csv (a row per nodule) and overview.html.

    Args:
        store: Where the results are.
        cases: All cases, in the order of the tables.
        records: Of the cases that ended, by id.
        title: What the overview says above its table.
    """
    rows, nodules, pictures = [], [], {}
    for case in cases:
        row = {"case": case.id, "source": case.source, "series_uid": case.series_uid or "", "status": PENDING}
        if record := records.get(case.id):
            summary = record.summary
            row |= {"status": record.status, "reason": record.reason, "attempts": record.attempts}
            row |= {f"{stage}_s": seconds for stage, seconds in record.seconds.items()}
            row |= {"peak_memory_mb": "" if record.peak_memory_mb is None else record.peak_memory_mb}
            row |= {"warnings": " ".join(summary.get("warnings", []))}
            row |= {name: summary[name] for name in ("nodules", "best_score", "longest_mm") if name in summary}
            row |= {"score_scale": scale_of(summary)} if "best_score" in summary else {}
        rows.append(row)
        if row["status"] == DONE:
            pictures[case.id] = record.summary.get("thumbnail", "")
            with suppress(FileNotFoundError):  # somebody took the result away
                found = read_csv(store.folder(case.id) / "nodules.csv")  # of older versions: without the scale
                nodules += [{"case": case.id, "score_scale": MODEL, **nodule} for nodule in found]
    tables = {
        "cases.csv": csv_text(rows, CASE_COLUMNS),
        "cohort.csv": csv_text(nodules, NODULE_COLUMNS),
        "overview.html": overview.page(title, rows, pictures),
    }
    for name, text in tables.items():
        with atomic_file(store.out / name) as part:
            write_text(part, text)
