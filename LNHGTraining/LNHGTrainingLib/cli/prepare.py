"""The commands `lnhg-train prepare` and `lnhg-train folds`."""

import argparse
from pathlib import Path

from LNHGLib.errors import InputError

from LNHGTrainingLib.cli.options import require_at_least


def add_commands(commands: "argparse._SubParsersAction") -> None:
    """Add `prepare` and `folds` to the parser of `lnhg-train`.

    Args:
        commands: Its subparsers.
    """
    parser = commands.add_parser("prepare", help="make training data of CTs and outlines")
    parser.add_argument("layout", choices=("lidc", "luna16", "pairs", "crops"), help="what INPUT is")
    parser.add_argument("input", type=Path, metavar="INPUT", help="folder; with pairs also a CSV list")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; a killed run goes on in it")
    parser.add_argument(
        "--xml", type=Path, metavar="FOLDER", help="readers' XML files (lidc: where not in INPUT; luna16)"
    )
    parser.add_argument("--patients", type=Path, metavar="FILE.csv", help="series_uid and patient_id (luna16, pairs)")
    parser.add_argument("--negatives", type=int, default=5, metavar="N", help="candidates a scan (luna16; default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of candidates (default 0)")
    parser.add_argument("--source", metavar="TEXT", help="what the table says the data are")
    parser.add_argument("--licence", metavar="TEXT", help="what the table says their licence is")
    parser.set_defaults(run=prepare)

    parser = commands.add_parser("folds", help="split prepared data by patient")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="table of prepared data, or of the crops")
    parser.add_argument("out", type=Path, metavar="OUT.csv", help="the table with folds; OUT.json beside it to publish")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="how many (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--hold-out", default="", metavar="PATIENT[,PATIENT]", help="keep these for testing")
    parser.add_argument("--like", type=Path, metavar="FILE.csv", help="patients in this table keep their folds")
    parser.add_argument("--split", choices=("patient", "nodule"), default="patient", help="what stays together")
    parser.add_argument("--i-know-it-leaks", action="store_true", help="needed for --split nodule")
    parser.set_defaults(run=split)


def prepare(options: argparse.Namespace) -> None:
    """Make training data and print how much."""
    if not options.input.exists():
        raise InputError(f"{options.input} does not exist, expected the data to prepare; check the path.")
    if options.layout != "pairs" and not options.input.is_dir():
        raise InputError(f"{options.input} is a file, expected a folder; give the folder.")
    for path in (options.xml, options.patients):
        if path is not None and not path.exists():
            raise InputError(f"{path} does not exist; check the path.")
    require_at_least(options, 0, "negatives")
    from LNHGTrainingLib.prepare import run
    from LNHGTrainingLib.prepare.sources import PrepareOptions

    names = ("xml", "patients", "negatives", "seed", "source", "licence")
    chosen = PrepareOptions(**{name: getattr(options, name) for name in names})
    counts = run.prepare(options.layout, options.input, options.out, chosen, run.say)
    print(f"{counts['prepared']} scan(s) prepared, {counts['skipped']} skipped, {counts['cubes']} cube(s)")
    print(options.out)


def split(options: argparse.Namespace) -> None:
    """Split prepared data into folds and print each."""
    if options.split == "nodule" and not options.i_know_it_leaks:
        raise InputError(
            "--split nodule puts nodules of one patient on both sides, so that Dice comes out too high; "
            "split by patient, or add --i-know-it-leaks to show by how much."
        )
    require_at_least(options, 2, "folds")
    from LNHGTrainingLib.prepare import folds

    held = tuple(name for name in options.hold_out.split(",") if name)
    plan = folds.Plan(options.folds, options.seed, options.split, held, options.like)
    record = folds.write_folds(options.manifest, options.out, plan)
    for each in record["folds"]:
        print(f"fold {each['fold']}: {len(each['patients'])} patients, {each['nodules']} nodules")
    if record["patients_in_more_than_one_fold"]:
        print(f"This split leaks: {record['patients_in_more_than_one_fold']} patients are in more than one fold.")
    print(options.out)
