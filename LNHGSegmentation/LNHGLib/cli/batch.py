"""The command `lnhg batch`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.cli.console import Stop, progress_printer, say
from LNHGLib.cli.segment import add_model_options

if TYPE_CHECKING:
    from LNHGLib.batch.store import Record

FAILED_EXIT = 1
HELP = """
INPUT is a folder (DICOM series by UID, zipped series, and .nii, .nii.gz, .nrrd, .mha and .mhd files), a CSV
list with the column path (and maybe case and series_uid), a glob in quotation marks, or several of these.
OUT gets a folder a case in OUT/cases, with the files of `lnhg segment`, and cases.csv, cohort.csv and overview.html.
A scan that cannot be done is reported and skipped; the exit status is 1 when none could be done.
"""


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
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
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, stop: Stop) -> None:
    """Run the command: a bar and a line per case that was not done; a line per case where there is no terminal.

    Args:
        options: Of the command line.
        stop: The wish of the user to stop.
    """
    from LNHGLib.batch import run as batch

    progress = progress_printer(options.json)

    def tell(fraction: float, text: str, record: "Record | None") -> None:
        if record is not None and record.reason:
            say(f"lnhg: {record.status}: {record.case}: {record.reason}")
        if record is not None or sys.stderr.isatty() or options.json:
            progress(fraction, text)

    wanted = batch.BatchOptions(
        tuple(options.inputs),
        options.out,
        options.model,
        options.device,
        options.threshold,
        options.jobs,
        options.resume,
        options.scheduler,
        options.runtime,
        options.exact,
    )
    stop.writing = True  # a finished case is never given up: the workers are told to stop, and do
    outcome = batch.run(wanted, tell, lambda sentence: say(f"lnhg: note: {sentence}"))
    if not options.json:
        print(batch.summary(outcome, options.out))
    if not outcome.counts[batch.DONE] and outcome.counts[batch.FAILED]:
        print(f"lnhg: no case could be done; {options.out / 'cases.csv'} says why.", file=sys.stderr)
        raise SystemExit(FAILED_EXIT)
