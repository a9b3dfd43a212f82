"""The command `lnhg report`."""

import argparse
from pathlib import Path

from LNHGLib.cli.console import Stop, progress_printer, say
from LNHGLib.errors import InputError, quoted

HELP = """
RESULT is a folder of `lnhg segment`. OUT gets nodules.csv, report.pdf (or report.png) with table and key pictures, and,
where the original DICOM series is there, nodules_seg.dcm (DICOM Segmentation) and nodules_sr.dcm (measurements by
TID 1500). The pages name no patient unless asked; SEG and SR carry the patient of the DICOM series, as DICOM demands.
Sizes by Fleischner 2017 and Lung-RADS v2022 are for research use: no recommendation, no diagnosis.
"""


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
    parser = commands.add_parser("report", help="write a result as PDF, CSV, DICOM SEG and SR", description=HELP)
    parser.add_argument("result", metavar="RESULT", type=Path, help="folder of lnhg segment")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write the report into")
    parser.add_argument("--dicom", metavar="FOLDER", type=Path, help="the original DICOM series; default: where it was")
    parser.add_argument("--page", choices=("pdf", "png"), default="pdf", help="form of the pages (default: pdf)")
    parser.add_argument(
        "--only", metavar="PART,...", type=_parts, help="csv, page, dicom or several; default: all that can be written"
    )
    parser.add_argument("--case", metavar="NAME", default="", help="name of the case on the pages")
    parser.add_argument(
        "--identity", action="store_true", help="put patient and study of the DICOM series on the pages"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the report in OUT")
    parser.add_argument("--json", action="store_true", help="progress as PROGRESS lines on stdout")
    parser.set_defaults(run=run)


def _parts(text: str) -> tuple[str, ...]:
    from LNHGLib.report.write import PARTS

    parts = tuple(part.strip() for part in text.split(","))
    if not set(parts) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"the parts are {quoted(text)}, expected some of {', '.join(PARTS)}")
    return parts


def run(options: argparse.Namespace, _stop: Stop) -> None:
    """Run the command.

    Args:
        options: Of the command line.
        _stop: Not needed.
    """
    from LNHGLib.report import write

    if not options.result.is_dir():
        raise InputError(f"{options.result} is no folder, expected a result folder of lnhg segment; give that folder.")
    wanted = write.ReportOptions(
        options.result, options.out, options.dicom, options.page, options.only, options.case, options.identity,
        options.overwrite,
    )  # fmt: skip
    for note in write.write_report(wanted, progress_printer(options.json)):
        say(f"lnhg: note: {note}")
    if not options.json:
        print(f"The report is in {options.out}")
