"""The commands `lnhg reader-study export`, `verify` and `analyse`."""

import argparse
from pathlib import Path

from LNHGLib.cli.console import Stop, progress_printer, say
from LNHGLib.errors import quoted
from LNHGLib.files.checksum import file_sha256

EXPORT_HELP = """
RESULTS are result folders of `lnhg segment`, folders of them, or the OUT of `lnhg batch`; their CTs are read again.
Every reader sees every case twice, as CT alone and with the heterogeneity map, in two sessions. STUDY gets a package
a reader and session in STUDY/packages (open viewer.html), and the key in STUDY/sealed, to be kept apart.
"""
ANALYZE_HELP = """
SCORES are the tables that the viewer saved, one or several (columns readerID, caseID, modalityID, score, confidence,
seconds, session, order, repeat). OUT gets report.md with pictures, each table as CSV, and analysis.json.
"""
VERIFY_HELP = "Say whether anything of a reader study was changed since it was made."


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command with its actions."""
    study = commands.add_parser("reader-study", help="make a blinded reader study, and analyse its scores")
    actions = study.add_subparsers(required=True, metavar="ACTION")
    export = actions.add_parser("export", help="make the pictures, viewers and key", description=EXPORT_HELP)
    export.set_defaults(run=_export)
    add = export.add_argument
    add("results", metavar="RESULTS", type=Path, nargs="+", help="result folders, or folders of them")
    add("out", metavar="STUDY", type=Path, help="folder to make")
    add("--readers", metavar="N|NAMES", default="3", help="number, or names with commas (default: %(default)s)")
    text = "of cases read twice a session (default: %(default)s)"
    add("--repeats", metavar="SHARE", type=float, default=0.1, help=text)
    text = "cases to take: columns result, and maybe nodule and truth (0 or 1)"
    add("--cases", metavar="LIST.csv", type=Path, help=text)
    add("--ct", metavar="FOLDER", type=Path, help="where the CTs are now, if they were moved")
    add("--layout", default="slice", help="slice (default), strip (three slices) or stack (to scroll)")
    add("--colors", help="viridis (default) or jet, the paper's")
    add("--signal-range", metavar=("LOW", "HIGH"), type=float, nargs=2, help="default: as in the panel")
    add("--field-mm", type=float, default=60.0, help="side of the square shown (default: %(default)s)")
    add("--question", help="what the score answers")
    add("--ends", metavar=("ZERO", "HUNDRED"), nargs=2, help="what the scores 0 and 100 mean")
    add("--washout-days", metavar="N", type=int, default=28, help="between the sessions (default: %(default)s)")
    add("--seed", metavar="N", type=int, help="repeat a study exactly; secret, as it leads to the key (default: drawn)")
    add("--dicom", action="store_true", help="write DICOM Secondary Capture as well")
    add("--force-burned-in", action="store_true", help="take CTs that say their pictures may hold a patient's name")
    add("--json", action="store_true", help="progress as PROGRESS lines on stdout")
    verify = actions.add_parser("verify", help="say whether anything was changed", description=VERIFY_HELP)
    verify.set_defaults(run=_verify)
    verify.add_argument("study", metavar="STUDY", type=Path)
    verify.add_argument("--sealed", metavar="FOLDER", type=Path, help="where the sealed folder is, if it was moved")
    analyze = actions.add_parser("analyse", help="make the statistics of the scores", description=ANALYZE_HELP)
    analyze.set_defaults(run=_analyze)
    add = analyze.add_argument
    add("scores", metavar="SCORES", type=Path, nargs="+", help="tables of scores, CSV")
    add("out", metavar="OUT", type=Path, help="folder to write the results into")
    add("--truth", metavar="FILE.csv", type=Path, help="columns caseID and truth (0 or 1); without it there is no AUC")
    text = "paired test, to be chosen before the scores are seen (default: %(default)s)"
    add("--test", choices=("wilcoxon", "t", "by-normality"), default="wilcoxon", help=text)
    text = "of areas over cases (default: %(default)s)"
    add("--covariance", choices=("delong", "jackknife"), default="delong", help=text)
    text = "equal steps of 0 to 100 for weighted kappa (default: %(default)s)"
    add("--categories", metavar="N", type=_categories, default=5, help=text)
    add("--overwrite", action="store_true", help="replace an earlier analysis in OUT")


def _categories(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 101:
        raise argparse.ArgumentTypeError(f"the number of categories is {quoted(text)}, expected 2 to 101")
    return int(text)


def _export(options: argparse.Namespace, stop: Stop) -> None:
    from LNHGLib.figures.colors import DEFAULT_STYLE
    from LNHGLib.reader_study import cases, design, export, images

    colors, signal_range = options.colors or DEFAULT_STYLE.color_map, options.signal_range or DEFAULT_STYLE.signal_range
    style = images.RenderStyle(options.layout, colors, tuple(signal_range), field_mm=options.field_mm)
    wanted = export.StudyOptions(
        readers=design.parse_readers(options.readers),
        repeats=options.repeats,
        seed=options.seed,
        washout_days=options.washout_days,
        question=options.question or export.QUESTION,
        ends=tuple(options.ends) if options.ends else export.ENDS if not options.question else ("0", "100"),
        style=style,
        dicom=options.dicom,
        forced=options.force_burned_in,
    )
    export.require_new(options.out)
    selections = cases.read_case_list(options.cases) if options.cases else []
    found = cases.find_study_cases(options.results, options.ct, selections, options.force_burned_in)
    progress = progress_printer(options.json)
    study = export.export_study(found, options.out, wanted, progress, stop.wished)
    progress(1.0, "Done")
    if not options.json:
        print(f"{study.cases} cases, {study.reads} reads for {', '.join(wanted.readers)} in {options.out}")
        print("Keep the folder sealed apart from all readers, and note the SHA-256 of study.json:")
        print(study.sha256)


def _verify(options: argparse.Namespace, _stop: Stop) -> None:
    from LNHGLib.reader_study import blinding_key

    number = blinding_key.verify(options.study, options.sealed)
    print(f"{number} files as they were made; compare the SHA-256 of study.json with the one you noted:")
    print(file_sha256(options.study / blinding_key.STUDY_FILE))


def _analyze(options: argparse.Namespace, stop: Stop) -> None:
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
        say(f"lnhg: note: {note}")
    for row in study.tables["readers"]:
        print(f"{row['reader']}, {row['modality']}: {row['mean']:.1f} +- {row['sd']:.2f} ({row['cases']} cases)")
    print(options.out / report.REPORT)
