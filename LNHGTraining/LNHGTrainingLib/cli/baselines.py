"""The commands `lnhg-train nnunet`, `methods`, `lungs`, `wand`, `detectors` and `inject`."""

import argparse
from pathlib import Path

from LNHGLib.errors import InputError

from LNHGTrainingLib.cli.options import (
    add_crops,
    add_overwrite,
    fold_numbers,
    named_path,
    require_at_least,
    require_path,
)


def add_commands(commands: "argparse._SubParsersAction") -> None:
    """Add `nnunet`, `methods`, `lungs`, `wand`, `detectors` and `inject` to the parser of `lnhg-train`.

    Args:
        commands: Its subparsers.
    """
    parser = commands.add_parser("nnunet", help="train nnU-Net on one fold, to compare with")
    parser.add_argument("--crops", type=Path, required=True, metavar="FILE.h5", help="crops around nodules")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE.csv", help="table of the crops, with folds")
    parser.add_argument("--fold", type=int, metavar="N", help="hold out this fold; without: plan and preprocess only")
    parser.add_argument("--epochs", type=int, default=1000, metavar="N", help="nnU-Net's own default: 1000")
    parser.add_argument("--iterations", type=int, default=250, metavar="N", help="an epoch (nnU-Net's default: 250)")
    parser.add_argument("--gpu-memory", type=float, metavar="GB", help="that nnU-Net plans for (its default: 8)")
    parser.add_argument("--no-mirroring", action="store_true", help="predict once, not as the mean of 8 mirrorings")
    parser.add_argument("--min-readers", type=int, default=3, metavar="N", help="fewest readers (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and patches (default 0)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default cpu)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of all folds; a killed run goes on in it")
    parser.set_defaults(run=train_nnunet)

    parser = commands.add_parser("methods", help="list every system of the documents, with its parameters and recipe")
    parser.set_defaults(run=list_methods)

    parser = commands.add_parser("lungs", help="compare the lungs as document 001 isolates them with those found here")
    parser.add_argument("cts", nargs="+", type=Path, metavar="CT", help="chest CT, as lnhg segment takes it")
    parser.add_argument("out", type=Path, metavar="OUT.png", help="picture of both outlines; OUT.json has the numbers")
    parser.set_defaults(run=compare_lungs)

    parser = commands.add_parser("wand", help="compare labels by a click, as in document 001, with the readers")
    parser.add_argument("--crops", type=Path, required=True, metavar="FILE.h5", help="crops around nodules")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE.csv", help="table of the crops")
    parser.add_argument("--min-readers", type=int, default=3, metavar="N", help="fewest readers (default 3)")
    parser.add_argument("--folds", type=fold_numbers, metavar="N[,N]", help="these folds alone")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N crops only")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    add_overwrite(parser)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the table and the report")
    parser.set_defaults(run=compare_wands)

    parser = commands.add_parser("detectors", help="score detectors alone, by slice and by nodule")
    parser.add_argument(
        "detectors", nargs="+", type=named_path, metavar="NAME=CHECKPOINT|MODEL", help="what marks them"
    )
    add_crops(parser)
    parser.add_argument("--fold", type=int, default=0, help="whose nodules are looked for, held out by all (default 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="about N nodules only")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the table and the report")
    parser.set_defaults(run=score_detectors)

    parser = commands.add_parser("inject", help="show nodules that a trained CT-GAN puts into a CT")
    parser.add_argument("ct", type=Path, metavar="CT", help="chest CT, as lnhg segment takes it")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="that `train injector` wrote")
    parser.add_argument("--seed", type=int, default=0, help="of the places (default 0)")
    parser.add_argument("out", type=Path, metavar="OUT.png", help="picture of the nodules to write")
    parser.set_defaults(run=show_injections)


def train_nnunet(options: argparse.Namespace) -> None:
    """Prepare the data for nnU-Net, and train it on one fold if one is given."""
    require_at_least(options, 1, "epochs", "iterations", "min_readers")
    if options.gpu_memory is not None and not options.gpu_memory > 0:
        raise InputError(
            f"--gpu-memory is {options.gpu_memory:g}, expected more than 0 GB; leave it out for all there is."
        )
    for path in (options.crops, options.table):
        require_path(path, "the crops and their table")
    from LNHGTrainingLib.baselines import nnunet

    cases = nnunet.prepare(options.out, options.crops, options.table, options.min_readers, options.gpu_memory)
    if options.fold is None:
        print(options.out)
        return
    budget = nnunet.Budget(options.epochs, options.iterations, options.seed, not options.no_mirroring)
    print(nnunet.train(options.out, cases, options.fold, budget, options.device))


def list_methods(_options: argparse.Namespace) -> None:
    """Print every system of the documents, with its parameters, its recipe and how long it was trained."""
    from LNHGTrainingLib.baselines import methods

    print(methods.render(), end="")


def compare_lungs(options: argparse.Namespace) -> None:
    """Find the lungs of CTs in both ways, plot both outlines and print how far they agree."""
    from LNHGLib.files.atomic import atomic_file
    from LNHGLib.files.text import write_json
    from LNHGLib.image.reader import read_volume

    from LNHGTrainingLib.baselines import lung_isolation

    volumes = {f"{path.resolve().parent.name}/{path.name}": read_volume(path) for path in options.cts}
    with atomic_file(options.out) as picture, atomic_file(options.out.with_suffix(".json")) as numbers:
        report = lung_isolation.compare(volumes, picture)
        write_json(numbers, report)
    print(lung_isolation.render(report), end="")


def compare_wands(options: argparse.Namespace) -> None:
    """Label nodules by a click in every way, compare the labels with the readers and print the table."""
    from LNHGLib.files.atomic import require_free
    from tqdm import tqdm

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.baselines import wand_study
    from LNHGTrainingLib.evaluation import crops

    require_free(options.out, options.overwrite, output_files.WAND)
    rows = crops.select_rows(options.table, crops.Selection(options.folds, options.min_readers, limit=options.limit))
    read = tqdm(crops.read_crops(options.crops, rows), total=len(rows), unit="nodule", disable=None)
    found = wand_study.measure(read)
    folds = "all folds" if options.folds is None else f"folds {' '.join(map(str, options.folds))}"
    data = f"{len(rows)} crops of {options.crops.stem}, {folds}, at least {options.min_readers} readers"
    result = wand_study.report(found, data, options.seed)
    wand_study.write(result, found, options.out, options.overwrite)
    print(wand_study.render(result))
    print(options.out)


def score_detectors(options: argparse.Namespace) -> None:
    """Score detectors alone on the crops of a fold that they held out, and print the table."""
    from LNHGLib.files.atomic import require_free

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.baselines import detectors
    from LNHGTrainingLib.data.crops import load_crops

    require_at_least(options, 1, "limit")
    require_free(options.out, options.overwrite, output_files.DETECTORS)
    loaded = [detectors.load_detector(*named, options.fold, options.device) for named in options.detectors]
    crops = load_crops(options.crops, options.table, [options.fold], options.min_readers)
    some = crops if options.limit is None else crops.spread(options.limit)
    data = f"{options.crops.stem}, at least {options.min_readers} readers"
    report = detectors.study(loaded, some, options.fold, data, options.seed)
    detectors.write(report, options.out, options.overwrite)
    print(detectors.render(report))
    print(options.out)


def show_injections(options: argparse.Namespace) -> None:
    """Put nodules into a CT, plot them and print how many came out."""
    require_path(options.checkpoint, "a checkpoint that `train injector` wrote")
    from LNHGLib.files.atomic import atomic_file

    from LNHGTrainingLib.baselines import injections
    from LNHGTrainingLib.data.injection import NoduleInjector
    from LNHGTrainingLib.training import checkpoint

    injector = NoduleInjector.of_checkpoint(checkpoint.load(options.checkpoint), options.checkpoint)
    with atomic_file(options.out) as part:
        made, tried = injections.plot(options.ct, injector, part, options.seed)
    print(f"{options.out}: {made} nodules at {tried} places")
