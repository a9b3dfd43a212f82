"""The commands `lnhg reader-study export` and `verify`; `analyse` is in study_analyse_command."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.cli import reader_study_analysis
from LNHGLib.cli.console import Stop, progress_printer
from LNHGLib.figures.colors import DEFAULT_STYLE
from LNHGLib.files.checksum import file_sha256

if TYPE_CHECKING:
    from LNHGLib.reader_study.export import Options

EXPORT_HELP = """
RESULTS are result folders of `lnhg segment`, folders of them, or the OUT of `lnhg batch`; their CTs are read again.
Every reader sees every case twice, as CT alone and with the heterogeneity map, in two sessions. STUDY gets a package
a reader and session in STUDY/packages (open viewer.html), and the key in STUDY/sealed, to be kept apart.
"""
VERIFY_HELP = "Say whether anything of a reader study was changed since it was made."


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
    parser = commands.add_parser("reader-study", help="make a blinded reader study, and analyse its scores")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_export(actions.add_parser("export", help="make the pictures, viewers and key", description=EXPORT_HELP))
    verify = actions.add_parser("verify", help="say whether anything was changed", description=VERIFY_HELP)
    verify.add_argument("study", metavar="STUDY", type=Path)
    verify.add_argument("--sealed", metavar="FOLDER", type=Path, help="where the sealed folder is, if it was moved")
    verify.set_defaults(run=_verify)
    reader_study_analysis.add_parser(actions)


def _add_export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("results", metavar="RESULTS", type=Path, nargs="+", help="result folders, or folders of them")
    add("out", metavar="STUDY", type=Path, help="folder to make")
    add("--readers", metavar="N|NAMES", default="3", help="number, or names with commas (default: %(default)s)")
    add(
        "--repeats",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="of cases read twice a session (default: %(default)s)",
    )
    add(
        "--cases",
        metavar="LIST.csv",
        type=Path,
        help="cases to take: columns result, and maybe nodule and truth (0 or 1)",
    )
    add("--ct", metavar="FOLDER", type=Path, help="where the CTs are now, if they were moved")
    add("--layout", default="slice", help="slice (default), strip (three slices) or stack (to scroll)")
    add("--colors", default=DEFAULT_STYLE.color_map, help="viridis or jet, the paper's (default: %(default)s)")
    shown = "default: {:g} {:g}".format(*DEFAULT_STYLE.signal_range)
    add("--signal-range", metavar=("LOW", "HIGH"), type=float, nargs=2, default=DEFAULT_STYLE.signal_range, help=shown)
    add("--field-mm", type=float, default=60.0, help="side of the square shown (default: %(default)s)")
    add("--question", help="what the score answers")
    add("--ends", metavar=("ZERO", "HUNDRED"), nargs=2, help="what the scores 0 and 100 mean")
    add("--washout-days", metavar="N", type=int, default=28, help="between the sessions (default: %(default)s)")
    add("--seed", metavar="N", type=int, help="repeat a study exactly; secret, as it leads to the key (default: drawn)")
    add("--dicom", action="store_true", help="write DICOM Secondary Capture as well")
    add("--force-burned-in", action="store_true", help="take CTs that say their pictures may hold a patient's name")
    add("--json", action="store_true", help="progress as PROGRESS lines on stdout")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace, stop: Stop) -> None:
    from LNHGLib.reader_study import cases, export

    wanted = _options(options)
    export.check_target(options.out)
    wishes = cases.read_list(options.cases) if options.cases else []
    entries = cases.find_entries(options.results, options.ct, wishes, options.force_burned_in)
    progress = progress_printer(options.json)
    outcome = export.export(entries, options.out, wanted, progress, stop.wished)
    progress(1.0, "Done")
    if not options.json:
        print(f"{outcome.cases} cases, {outcome.reads} reads for {', '.join(wanted.readers)} in {options.out}")
        print("Keep the folder sealed apart from all readers, and note the SHA-256 of study.json:")
        print(outcome.seal)


def _options(options: argparse.Namespace) -> "Options":
    from LNHGLib.reader_study import design, export, images

    look = images.Look(options.layout, options.colors, tuple(options.signal_range), field_mm=options.field_mm)
    return export.Options(
        readers=design.parse_readers(options.readers),
        repeats=options.repeats,
        seed=options.seed,
        washout_days=options.washout_days,
        question=options.question or export.QUESTION,
        ends=tuple(options.ends) if options.ends else export.ENDS if not options.question else ("0", "100"),
        look=look,
        dicom=options.dicom,
        forced=options.force_burned_in,
    )


def _verify(options: argparse.Namespace, _stop: Stop) -> None:
    from LNHGLib.reader_study import blinding_key

    number = blinding_key.verify(options.study, options.sealed)
    print(f"{number} files as they were made; compare the SHA-256 of study.json with the one you noted:")
    print(file_sha256(options.study / blinding_key.STUDY_FILE))
