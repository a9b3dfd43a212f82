"""The command `lnhg reader-study analyse`."""

import argparse
import sys
from pathlib import Path

from LNHGLib.cli.console import Stop

HELP = """
SCORES are the tables that the viewer saved, one or several (columns readerID, caseID, modalityID, score, confidence,
seconds, session, order, repeat). OUT gets report.md with pictures, each table as CSV, and analysis.json.
"""


def add_parser(actions: "argparse._SubParsersAction") -> None:
    """Add the command to the actions of `lnhg reader-study`."""
    parser = actions.add_parser("analyse", help="make the statistics of the scores", description=HELP)
    add = parser.add_argument
    add("scores", metavar="SCORES", type=Path, nargs="+", help="tables of scores, CSV")
    add("out", metavar="OUT", type=Path, help="folder to write the results into")
    add("--truth", metavar="FILE.csv", type=Path, help="columns caseID and truth (0 or 1); without it there is no AUC")
    add(
        "--test",
        choices=("wilcoxon", "t", "by-normality"),
        default="wilcoxon",
        help="paired test, to be chosen before the scores are seen (default: %(default)s)",
    )
    add(
        "--covariance",
        choices=("delong", "jackknife"),
        default="delong",
        help="of areas over cases (default: %(default)s)",
    )
    add(
        "--categories",
        metavar="N",
        type=_categories,
        default=5,
        help="equal steps of 0 to 100 for weighted kappa (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace an earlier analysis in OUT")
    parser.set_defaults(run=_analyse)


def _categories(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 101:
        raise argparse.ArgumentTypeError(f"the number of categories is {text!r}, expected 2 to 101")
    return int(text)


def _analyse(options: argparse.Namespace, stop: Stop) -> None:
    from LNHGLib.files.atomic import require_free
    from LNHGLib.reader_study import analysis, report
    from LNHGLib.reader_study.scores import read_scores, read_truth
    from LNHGLib.reader_study.settings import Settings

    require_free(options.out, options.overwrite, report.FILES)
    truth = read_truth(options.truth) if options.truth else None
    settings = Settings(options.test, options.covariance, options.categories)
    study = analysis.analyze(read_scores(options.scores), truth, settings)
    inputs = [*options.scores, *([options.truth] if options.truth else [])]
    stop.writing = True
    report.write(study, inputs, options.out, options.overwrite)
    for note in study.notes:
        print(f"lnhg: note: {note}", file=sys.stderr)
    for row in study.tables["readers"]:
        print(f"{row['reader']}, {row['modality']}: {row['mean']:.1f} +- {row['sd']:.2f} ({row['cases']} cases)")
    print(options.out / report.REPORT)
