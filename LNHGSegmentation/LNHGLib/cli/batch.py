"""The command `lnhg batch`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.cli.console import Stop, progress_printer

if TYPE_CHECKING:
    from LNHGLib.batch.store import Record

FAILED_EXIT = 1
HELP = """
INPUT is a folder (DICOM series by UID, zipped series, and .nii, .nii.gz, .nrrd, .mha and .mhd files), a CSV
list with the column path (and maybe case and series_uid), a glob in quotation marks, or several of these.
OUT gets a folder a case in OUT/cases, with the files of `lnhg segment`, and cases.csv, cohort.csv and overview.html.
A scan that cannot be done is reported and skipped; the exit status is 1 when none could be done.
"""


def add_parser(commands: "argparse._SubParsersAction") -> argparse.ArgumentParser:
    """Add the command; the caller adds what it shares with others: device, model, threshold, json."""
    parser = commands.add_parser("batch", help="find the nodules of many chest CTs", description=HELP)
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="folder, CSV list, glob or files")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write the results into")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="worker processes (default: 1)")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="do the cases on a Dask cluster: tcp://host:8786, or the scheduler's file",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an earlier run into OUT")
    parser.set_defaults(run=_batch)
    return parser


def _batch(options: argparse.Namespace, stop: Stop) -> None:
    from LNHGLib.batch import run

    wanted = run.Options(
        tuple(options.inputs),
        options.out,
        options.model,
        options.device,
        options.threshold,
        options.jobs,
        options.resume,
        options.scheduler,
    )
    stop.writing = True  # a finished case is never given up: the workers are told to stop, and do
    outcome = run.run(wanted, _teller(options.json), _note)
    if not options.json:
        print(run.summary(outcome, options.out))
    if not outcome.counts[run.DONE] and outcome.counts[run.FAILED]:
        print(f"lnhg: no case could be done; {options.out / 'cases.csv'} says why.", file=sys.stderr)
        raise SystemExit(FAILED_EXIT)


def _note(sentence: str) -> None:
    _say(f"lnhg: note: {sentence}")


def _say(line: str) -> None:
    """Print a line on stderr, in the place of a progress bar that may stand there."""
    wipe = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{wipe}{line}", file=sys.stderr, flush=True)


def _teller(as_lines: bool) -> "Callable[[float, str, Record | None], None]":
    """A bar for people with a line for each case that was not done; a line a case where there is no terminal."""
    progress = progress_printer(as_lines)

    def tell(fraction: float, text: str, record: "Record | None") -> None:
        if record is not None and record.reason:
            _say(f"lnhg: {record.status}: {record.case}: {record.reason}")
        if record is not None or sys.stderr.isatty() or as_lines:
            progress(fraction, text)

    return tell
