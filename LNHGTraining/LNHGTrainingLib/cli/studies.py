"""The commands of `lnhg-train` that set trained networks and their results side by side, and study them."""

import argparse
from dataclasses import replace
from pathlib import Path

from LNHGLib.errors import InputError

from LNHGTrainingLib.cli.options import add_crops, add_device, add_overwrite, fold_numbers, named_path, require_at_least

MARGIN = 0.02
"""Dice that two methods may differ by and still be called equivalent, where nothing else is asked for."""
CHECKPOINTS = (".pt", ".safetensors")
"""How the names of checkpoints end; anything else is a model."""
FIGURES = {
    "outlines": "Fig. 5 and 8 to 11: what methods outline on the same nodules",
    "maps": "Fig. 6: the CT, its values in the map's colors, and the maps of methods",
    "steps": "Fig. 7: the map over the steps of a training, by what a nodule is attached to",
}
"""What `figure` draws, and the figures of the paper that are like it."""
PAPER_FILES = ("paper.md", "outlines.png", "maps.png", "steps.png")
"""All that `paper` writes; a folder that holds anything else is never replaced by it."""
PAPER_HELP = """
Print the tables of the LNHG paper and its supplement with ours beside them, as Markdown. With --out they go into a
folder, too, with pictures of ours like the paper's figures: one for each of --outlines, --maps and --steps.
"""
MAP_STUDIES = {
    "stability": ("how alike the heterogeneity maps of several generators are", 2),
    "leakage": ("how far a heterogeneity map is the CT, and how far it repeats", 1),
}
"""Commands on heterogeneity maps, with their help and the fewest generators."""


def add_commands(commands: "argparse._SubParsersAction") -> None:
    """Add the commands to the parser of `lnhg-train`.

    Args:
        commands: Its subparsers.
    """
    parser = commands.add_parser("compare", help="set evaluations beside each other and the readers, with tests")
    parser.add_argument("evaluations", type=Path, nargs="+", metavar="EVALUATION", help="folder of an evaluation")
    parser.add_argument("--margin", type=float, default=MARGIN, help=f"of equivalence, Dice (default {MARGIN:g})")
    parser.add_argument("--with-first", action="store_true", help="test the first alone against each other")
    parser.add_argument("--trainings", action="store_true", help="spread over trainings of one name instead of tests")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    add_overwrite(parser)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables and tests")
    parser.set_defaults(run=compare)

    parser = commands.add_parser("crossvalidate", help="score a method's checkpoints or models, each on its own fold")
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT|MODEL",
        help="one for each fold: outlines by checkpoints of the segmenter, or what is found by models of all parts",
    )
    parser.add_argument("--name", required=True, help="of the method in the tables")
    parser.add_argument("--half-turn", action="store_true", help="mean of the image and that of the half turn")
    parser.add_argument("--trim", action="store_true", help="cut off the vessels and walls that outlines ran along")
    parser.add_argument("--k-means", action="store_true", help="cut each slice by K-means, as document 001 does")
    parser.add_argument("--scans", type=Path, metavar="FILE.h5", help="whole scans with outlines, for models")
    parser.add_argument("--limit", type=int, metavar="N", help="about N crops of each fold only, for models")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps what models found, to go on after a kill")
    add_crops(parser)
    parser.add_argument("--data-name", metavar="TEXT", help="how the reports call the data")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables, summary and plots")
    parser.set_defaults(run=crossvalidate)

    parser = commands.add_parser("figure", help="draw outlines or maps of methods on the same nodules, side by side")
    parser.add_argument("methods", nargs="+", type=named_path, metavar="NAME=CHECKPOINT|MODEL", help="what is drawn")
    add_crops(parser)
    parser.add_argument("--kind", choices=list(FIGURES), default="outlines", help="what is drawn (default outlines)")
    parser.add_argument("--fold", type=int, default=0, help="whose nodules are drawn, held out by all (default 0)")
    parser.add_argument("out", type=Path, metavar="OUT.png", help="picture to write")
    parser.set_defaults(run=draw_figure)

    add_paper(commands)

    for name, (text, fewest) in MAP_STUDIES.items():
        parser = commands.add_parser(name, help=text)
        parser.add_argument("generators", nargs="+", metavar="GENERATOR", help="model, folder or checkpoint (.pt)")
        add_crops(parser)
        parser.add_argument("--folds", type=fold_numbers, metavar="N[,N]", help="these folds alone")
        parser.add_argument("--limit", type=int, metavar="N", help="the first N crops only")
        parser.add_argument("--seed", type=int, default=0, help="of noise and bootstrap (default 0)")
        parser.add_argument("out", type=Path, metavar="OUT", help="folder for the table and the report")
        parser.set_defaults(run=study_maps, fewest=fewest)


def add_paper(commands: "argparse._SubParsersAction") -> None:
    """Add `paper` to the parser of `lnhg-train`.

    Args:
        commands: Its subparsers.
    """
    parser = commands.add_parser("paper", help="set the paper's tables and figures beside ours", description=PAPER_HELP)
    parser.add_argument("evaluations", type=Path, nargs="*", metavar="EVALUATION", help="folder of an evaluation")
    text = "in place of them: folder of the studies that `methods` lists, with the bundled model's card"
    parser.add_argument("--studies", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--detectors", type=Path, metavar="FOLDER", help="that `detectors` wrote")
    parser.add_argument("--reader-study", type=Path, metavar="FOLDER", help="that `lnhg reader-study analyse` wrote")
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder for the tables and the pictures")
    add_overwrite(parser)
    group = parser.add_argument_group("pictures", "as `figure` draws them, of a fold that all methods held out")
    for kind, text in FIGURES.items():
        group.add_argument(f"--{kind}", nargs="+", type=named_path, metavar="NAME=CHECKPOINT|MODEL", help=text)
    group.add_argument("--crops", type=Path, metavar="FILE.h5", help="crops around nodules")
    group.add_argument("--table", type=Path, metavar="FILE.csv", help="table of the crops")
    group.add_argument("--fold", type=int, default=0, help="whose nodules are drawn (default 0)")
    group.add_argument("--min-readers", type=int, default=3, metavar="N", help="fewest readers (default 3)")
    add_device(group)
    parser.set_defaults(run=set_beside_paper)


def compare(options: argparse.Namespace) -> None:
    """Compare evaluations, write the tables and print them."""
    from LNHGLib.files.atomic import require_free

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import compare as comparison

    if not 0 < options.margin < 1:
        raise InputError(f"--margin is {options.margin:g}, expected a Dice between 0 and 1; give such a margin.")
    require_free(options.out, options.overwrite, output_files.COMPARISON)
    read = comparison.read_evaluations(options.evaluations)
    report = (
        comparison.over_trainings(read)
        if options.trainings
        else comparison.compare(read, options.margin, options.seed, options.with_first)
    )
    comparison.write(report, options.out, options.overwrite)
    print(comparison.render(report))
    print(options.out)


def crossvalidate(options: argparse.Namespace) -> None:
    """Score a method's checkpoints or models, each on the patients it never saw, and print the tables."""
    if any(path.is_file() or path.suffix in CHECKPOINTS for path in options.checkpoints):
        crossvalidate_checkpoints(options)
    else:
        crossvalidate_models(options)


def crossvalidate_checkpoints(options: argparse.Namespace) -> None:
    """Measure how well segmenters outline the nodules of crops that they held out, and print the tables."""
    for name in ("scans", "limit", "cache"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} goes with models, checkpoints were given; leave it out, or give model folders.")
    from LNHGLib.files.atomic import require_free

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import crossvalidate as crossvalidation
    from LNHGTrainingLib.evaluation import markdown, run
    from LNHGTrainingLib.evaluation.crops import CropFiles

    require_free(options.out, options.overwrite, output_files.EVALUATION)
    files = CropFiles(options.crops, options.table)
    inference = crossvalidation.InferenceOptions(options.half_turn, options.trim, options.k_means)
    folds = crossvalidation.read_folds(options.checkpoints, files, options.device, inference)
    reporting = run.EvaluationOptions(options.seed, options.data_name, options.overwrite)
    report = crossvalidation.run(options.name, folds, files, options.out, reporting, options.min_readers)
    print(markdown.render(report))
    print(options.out)


def crossvalidate_models(options: argparse.Namespace) -> None:
    """Measure what models find in the scans and crops that they held out, and print the tables."""
    require_at_least(options, 1, "limit")
    if options.scans is None or options.half_turn or options.trim or options.min_readers != 3:
        raise InputError(
            "Models were given: expected --scans FILE.h5, and none of --half-turn, --trim and --min-readers, which go "
            "with checkpoints; change the options."
        )
    from LNHGLib.files.atomic import require_free
    from LNHGLib.models import folder as models

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import detection

    require_free(options.out, options.overwrite, output_files.DETECTION)
    data = detection.SearchedData(options.crops, options.table, options.scans, options.limit, options.cache)
    folds = [models.load(str(path)) for path in options.checkpoints]
    places = detection.search(folds, data, options.device)
    made = detection.study(options.name, folds, places, options.seed)
    detection.write(made, places, options.out, options.overwrite)
    print(detection.render(made.report))
    print(options.out)


def draw_figure(options: argparse.Namespace) -> None:
    """Draw the outlines or the maps of methods on one nodule of each type."""
    from LNHGTrainingLib.baselines import side_by_side
    from LNHGTrainingLib.evaluation.crops import CropFiles, Selection

    if options.out.suffix != ".png":
        raise InputError(f"The picture is {options.out}, expected a name that ends with .png; name it so.")
    if options.out.exists() and not options.overwrite:
        raise InputError(f"{options.out} exists already, expected a new picture; give another name or --overwrite.")
    files = CropFiles(options.crops, options.table)
    selection = Selection((options.fold,), options.min_readers)
    side_by_side.draw(dict(options.methods), files, selection, options.out, options.device, options.kind)
    print(options.out)


def set_beside_paper(options: argparse.Namespace) -> None:
    """Print the paper's tables with ours beside them, and write them into a folder with pictures like its figures."""
    methods = {kind: dict(getattr(options, kind)) for kind in FIGURES if getattr(options, kind)}
    if methods and not (options.out and options.crops and options.table):
        raise InputError(f"--{next(iter(methods))} needs --out, --crops and --table; give all of them.")
    if options.studies and options.evaluations:
        raise InputError("Evaluations and --studies were both given, expected one of them; leave out the other.")
    from LNHGLib.files.atomic import atomic_folder

    from LNHGTrainingLib.baselines import detectors, side_by_side
    from LNHGTrainingLib.evaluation import compare, published
    from LNHGTrainingLib.evaluation.crops import CropFiles, Selection

    ours = (
        published.of_studies(options.studies)
        if options.studies
        else published.Ours([compare.read_evaluation(folder) for folder in options.evaluations])
    )
    if options.detectors:
        ours = replace(ours, detectors=detectors.read(options.detectors))
    if options.reader_study:
        ours = replace(ours, reader_study=published.read_reader_study(options.reader_study))
    text = published.render(ours, {f"{kind}.png": FIGURES[kind] for kind in methods})
    if options.out:
        files, selection = CropFiles(options.crops, options.table), Selection((options.fold,), options.min_readers)
        with atomic_folder(options.out, options.overwrite, PAPER_FILES) as folder:
            (folder / "paper.md").write_text(text, encoding="utf-8")
            for kind, chosen in methods.items():
                picture = folder / f"{kind}.png"
                side_by_side.draw(chosen, files, selection, picture, options.device, kind)
    print(text, end="")
    if options.out:
        print(options.out)


def study_maps(options: argparse.Namespace) -> None:
    """Measure heterogeneity maps on crops, as `options.command` asks for, and print the table."""
    from LNHGLib.files.atomic import require_free
    from tqdm import tqdm

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import crops as evaluate_crops
    from LNHGTrainingLib.evaluation import map_study
    from LNHGTrainingLib.evaluation.predictors import load_predictors

    if len(options.generators) < options.fewest:
        raise InputError(
            f"1 generator was given, {options.command} expects {options.fewest} or more before OUT; name them all."
        )
    require_free(options.out, options.overwrite, output_files.MAPS)
    selection = evaluate_crops.Selection(options.folds, options.min_readers, limit=options.limit)
    rows = evaluate_crops.select_rows(options.table, selection)
    generators = load_predictors(options.generators, options.device)
    crops = tqdm(evaluate_crops.read_crops(options.crops, rows), total=len(rows), unit="nodule", disable=None)
    if options.command == "stability":
        found = map_study.stability(crops, {one.name: one.predict for one in generators})
    else:
        found = map_study.leakage(crops, {one.name: (one.predict, one.window_hu) for one in generators}, options.seed)
    if not found:
        raise InputError(f"None of the {len(rows)} crops has a reference that is large enough; choose other --folds.")
    folds = "all folds" if options.folds is None else f"folds {' '.join(map(str, options.folds))}"
    limit = f", the first {options.limit}" if options.limit else ""
    data = f"{len(rows)} crops of {options.crops.stem}, {folds}{limit}, at least {options.min_readers} readers"
    identities = {one.name: one.identity for one in generators}
    result = map_study.report(options.command, found, identities, data, options.seed)
    map_study.write(result, found, options.out, options.overwrite)
    print(map_study.render(result))
    print(options.out)
