"""The commands of `lnhg-train` that set trained networks and their results side by side, and study them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.errors import InputError

if TYPE_CHECKING:  # they bring torch and more along
    from LNHGTrainingLib.evaluation.predictors import NamedPredictor

MARGIN = 0.02
"""Dice that two methods may differ by and still be called equivalent, where nothing else is asked for."""


def add_commands(commands: "argparse._SubParsersAction") -> None:
    """Add the commands to the parser of `lnhg-train`."""
    _add_compare(commands.add_parser("compare", help="set evaluations beside each other and the readers, with tests"))
    _add_crossvalidate(commands.add_parser("crossvalidate", help="score a method's checkpoints, each on its own fold"))
    _add_branches(commands.add_parser("branches", help="how well nodules are found with one branch left out"))
    _add_paper(commands.add_parser("paper", help="print the paper's Tables I, II and S1 beside ours (Markdown)"))
    _add_maps(commands.add_parser("stability", help="how alike the heterogeneity maps of several generators are"), 2)
    _add_maps(commands.add_parser("leakage", help="how far a heterogeneity map is the CT, and how far it repeats"), 1)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("evaluations", type=Path, nargs="+", metavar="EVALUATION", help="folder of an evaluation")
    parser.add_argument("--margin", type=float, default=MARGIN, help=f"of equivalence, Dice (default {MARGIN:g})")
    parser.add_argument("--with-first", action="store_true", help="test the first alone against each other")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables and tests")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    from LNHGLib.files.atomic import require_free

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import compare

    if not 0 < options.margin < 1:
        raise InputError(f"--margin is {options.margin:g}, expected a Dice between 0 and 1.")
    require_free(options.out, options.overwrite, output_files.COMPARISON)
    read = compare.read_evaluations(options.evaluations)
    report = compare.compare(read, options.margin, options.seed, options.with_first)
    compare.write(report, options.out, options.overwrite)
    print(compare.render(report))
    print(options.out)


def _add_crossvalidate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="of the segmenter, one a fold")
    parser.add_argument("--name", required=True, help="of the method in the tables")
    parser.add_argument("--half-turn", action="store_true", help="mean of the image and that of the half turn")
    parser.add_argument("--trim", action="store_true", help="cut off the vessels and walls that outlines ran along")
    _add_crops(parser)
    parser.add_argument("--data-name", metavar="TEXT", help="how the reports call the data")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables, summary and plots")
    parser.set_defaults(run=_crossvalidate)


def _crossvalidate(options: argparse.Namespace) -> None:
    from LNHGLib.files.atomic import require_free

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import crossvalidate, markdown, run

    require_free(options.out, options.overwrite, output_files.EVALUATION)
    files = options.crops, options.table
    how = crossvalidate.InferenceOptions(options.half_turn, options.trim)
    folds = crossvalidate.read_folds(options.checkpoints, *files, options.device, how)
    written = run.EvaluationOptions(options.seed, options.data_name, options.overwrite)
    report = crossvalidate.run(options.name, folds, *files, options.out, written, options.min_readers)
    print(markdown.render(report))
    print(options.out)


def _add_branches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name of a model, or its folder")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder with crops/")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the table")
    parser.set_defaults(run=_branches)


def _branches(options: argparse.Namespace) -> None:
    from LNHGLib.files.atomic import require_free
    from LNHGLib.models import folder as models
    from LNHGLib.segmentation.pipeline import choose_device

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import branch_ablation
    from LNHGTrainingLib.release import calibrate

    require_free(options.out, options.overwrite, output_files.BRANCH_ABLATION)
    model, where = models.load(options.model), choose_device(options.device)
    crops = calibrate.validation_crops(model, options.data)
    seen = calibrate.predict_crops(model, crops, where)
    found = branch_ablation.detections(seen, model.card)
    about = {"model": model.name, "files": model.card["files"]}
    result = branch_ablation.report(found, [one.crop.patient for one in seen], about, options.seed)
    branch_ablation.write(result, options.out, options.overwrite)
    print(branch_ablation.render(result))
    print(options.out)


def _add_crops(parser: argparse.ArgumentParser) -> None:
    """Add what every command has that runs generators on crops."""
    parser.add_argument("--crops", type=Path, required=True, metavar="FILE.h5", help="crops around nodules")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE.csv", help="table of the crops")
    parser.add_argument("--min-readers", type=int, default=3, metavar="N", help="fewest readers (default 3)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def _add_paper(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("evaluations", type=Path, nargs="*", metavar="EVALUATION", help="folder of an evaluation")
    parser.set_defaults(run=_paper)


def _paper(options: argparse.Namespace) -> None:
    from LNHGTrainingLib.evaluation import compare, published

    print(published.render([compare.read_evaluation(folder) for folder in options.evaluations]), end="")


def _add_maps(parser: argparse.ArgumentParser, least: int) -> None:
    parser.add_argument("generators", nargs="+", metavar="GENERATOR", help="model, its folder, or a checkpoint (.pt)")
    _add_crops(parser)
    parser.add_argument("--folds", type=_numbers, metavar="N[,N]", help="these folds alone")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N crops only")
    parser.add_argument("--seed", type=int, default=0, help="of noise and bootstrap (default 0)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the table and the report")
    parser.set_defaults(run=_maps, least=least)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _maps(options: argparse.Namespace) -> None:
    from LNHGLib.files.atomic import require_free
    from tqdm import tqdm

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import crops as evaluate_crops
    from LNHGTrainingLib.evaluation import map_study
    from LNHGTrainingLib.evaluation.predictors import load_predictors

    if len(options.generators) < options.least:
        raise InputError(f"1 generator was given, {options.command} expects {options.least} or more before OUT.")
    require_free(options.out, options.overwrite, output_files.MAPS)
    selection = evaluate_crops.Selection(options.folds, options.min_readers, limit=options.limit)
    rows = evaluate_crops.select_rows(options.table, selection)
    sources = load_predictors(options.generators, options.device)
    crops = tqdm(evaluate_crops.read_crops(options.crops, rows), total=len(rows), unit="nodule", disable=None)
    if options.command == "stability":
        found = map_study.stability(crops, {source.name: source.predict for source in sources})
    else:
        found = map_study.leakage(crops, {s.name: (s.predict, s.window_hu) for s in sources}, options.seed)
    if not found:
        raise InputError(f"None of the {len(rows)} crops has a reference that is large enough; choose other --folds.")
    result = map_study.report(options.command, found, _identity(sources), _data(options, len(rows)), options.seed)
    map_study.write(result, found, options.out, options.overwrite)
    print(map_study.render(result))
    print(options.out)


def _identity(sources: "list[NamedPredictor]") -> dict[str, str]:
    return {source.name: source.identity for source in sources}


def _data(options: argparse.Namespace, crops: int) -> str:
    folds = "all folds" if options.folds is None else f"folds {' '.join(map(str, options.folds))}"
    limit = f", the first {options.limit}" if options.limit else ""
    return f"{crops} crops of {options.crops.stem}, {folds}{limit}, at least {options.min_readers} readers"
