"""The commands `lnhg-train evaluate` and `lnhg-train calibrate`."""

import argparse
from pathlib import Path

from LNHGLib.errors import InputError

from LNHGTrainingLib.cli.options import add_device, add_overwrite, fold_numbers, require_at_least, require_path


def add_commands(commands: "argparse._SubParsersAction") -> None:
    """Add `evaluate` and `calibrate` to the parser of `lnhg-train`.

    Args:
        commands: Its subparsers.
    """
    parser = commands.add_parser("evaluate", help="score a model on crops or on whole scans")
    parser.add_argument("--model", required=True, help="name of a model, or its folder")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--crops", type=Path, metavar="FILE.h5", help="crops around nodules (location given)")
    source.add_argument("--scans", type=Path, metavar="FOLDER", help="folder of whole scans with outlines")
    parser.add_argument("--table", type=Path, metavar="FILE.csv", help="table of the crops")
    parser.add_argument("--folds", type=fold_numbers, metavar="N[,N]", help="these folds alone (crops)")
    parser.add_argument("--min-readers", type=int, default=3, metavar="N", help="fewest readers (crops; default 3)")
    parser.add_argument("--include-scan-test", action="store_true", help="also crops of the test scans")
    parser.add_argument("--limit", type=int, metavar="N", help="score the first N crops or scans only")
    parser.add_argument("--data-name", metavar="TEXT", help="how the reports call the data")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    add_device(parser)
    add_overwrite(parser)
    parser.add_argument("--write-card", action="store_true", help="put the results into the model's card and README")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables, summary and plots")
    parser.set_defaults(run=evaluate)

    parser = commands.add_parser("calibrate", help="choose a model's thresholds on validation crops")
    parser.add_argument("--model", required=True, help="name of a model, or its folder; its card is rewritten")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder with crops/")
    parser.add_argument("--false-per-scan", type=float, default=2.0, metavar="N", help="rate allowed (default 2)")
    add_device(parser)
    parser.set_defaults(run=calibrate)

    parser = commands.add_parser("probability", help="make a model's scores probabilities, on scans nobody trained on")
    parser.add_argument("--model", required=True, help="name of a model, or its folder; its card is rewritten")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder with crops/ and scans/")
    parser.add_argument("--false-per-scan", type=float, default=0.5, metavar="N", help="rate allowed (default 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    add_device(parser)
    add_overwrite(parser)
    parser.add_argument(
        "held_out",
        nargs="+",
        metavar="HELD_OUT",
        help="model folders like the model, each trained without some patients",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the findings, tables and the diagram")
    parser.set_defaults(run=fit_probability)


def evaluate(options: argparse.Namespace) -> None:
    """Score a model on crops or on whole scans, and print the tables."""
    require_at_least(options, 1, "limit", "min_readers")
    if options.scans:
        require_path(options.scans, "a folder of cases", folder=True)
        if options.table or options.folds is not None or options.include_scan_test:
            raise InputError("--table, --folds and --include-scan-test go with --crops; leave them out with --scans.")
    elif options.table is None:
        raise InputError("--crops was given without --table, expected the table of the crops; add --table FILE.csv.")
    else:
        require_path(options.crops, "an HDF5 file of crops")
        require_path(options.table, "the table of the crops")
    from LNHGLib.files.atomic import require_free
    from LNHGLib.models import folder as models
    from LNHGLib.segmentation.runtime import choose_runtime

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import markdown, run
    from LNHGTrainingLib.evaluation.crops import CropFiles, Selection
    from LNHGTrainingLib.release import model_card

    require_free(options.out, options.overwrite, output_files.EVALUATION)
    model = models.load(options.model)
    reporting = run.EvaluationOptions(options.seed, options.data_name, options.overwrite)
    if options.crops:
        selection = Selection(options.folds, options.min_readers, options.include_scan_test, options.limit)
        files = CropFiles(options.crops, options.table)
        predict = run.model_predictor(model, choose_runtime(options.device, model))
        report = run.run_crops(model.card, predict, files, options.out, selection, reporting)
    else:
        segment = run.pipeline_segmenter(model, options.device, min(run.FROC_THRESHOLD, model.card["threshold"]))
        report = run.run_scans(model.card, segment, options.scans, options.out, options.limit, reporting)
    if options.write_card:
        model_card.update(model.folder, report)
    print(markdown.render(report))
    print(options.out)


def calibrate(options: argparse.Namespace) -> None:
    """Choose a model's thresholds and rewrite its card."""
    require_path(options.data, "a folder with crops/", folder=True)
    from LNHGLib.models import folder as models
    from LNHGLib.segmentation.devices import choose_device
    from tqdm import tqdm

    from LNHGTrainingLib.release import calibrate as calibration
    from LNHGTrainingLib.release import model_card

    model, where = models.load(options.model), choose_device(options.device)
    crops = calibration.validation_crops(model, options.data)
    outputs = calibration.predict_crops(model, tqdm(crops, unit="nodule", disable=None), where)
    chosen = calibration.choose(outputs, model.card, options.false_per_scan)
    chosen.pop("results", None)  # they were measured at the former thresholds
    model_card.write(model.folder, chosen)
    print(model.folder / "model.json")


def fit_probability(options: argparse.Namespace) -> None:
    """Fit what makes scores probabilities, rewrite the model's card, write what it rests on and print it."""
    require_path(options.data, "a folder with crops/ and scans/", folder=True)
    from LNHGLib.files.atomic import require_free
    from LNHGLib.models import folder as models

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.release import model_card, probability

    require_free(options.out, options.overwrite, output_files.PROBABILITY)
    model = models.load(options.model)
    held_out = [models.load(name) for name in options.held_out]
    study = probability.run(model, held_out, options.data, options.false_per_scan, options.seed, options.device)
    probability.write(study, options.out, options.overwrite)
    model_card.write(model.folder, study.card)
    print(probability.render(study.report))
    print(model.folder / "model.json")
