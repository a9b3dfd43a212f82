"""`lnhg-train`: prepare, train, export, calibrate, evaluate without Slicer (the same as `python -m LNHGTrainingLib`).

Exit status 0 done, 1 it failed, 2 the input or the arguments are wrong, 143 stopped by SIGTERM (a training within
seconds, with a checkpoint to `--resume` from; any other command leaves nothing half done); then one sentence on stderr.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from LNHGLib.cli.console import use_huge_pages
from LNHGLib.errors import Cancelled, InputError
from LNHGLib.setup import package_list

from LNHGTrainingLib import config as settings
from LNHGTrainingLib.cli import baselines, prepare, studies
from LNHGTrainingLib.training import sigterm

if TYPE_CHECKING:  # torch, matplotlib and the rest load when a command needs them
    from LNHGLib.models.folder import Model

    from LNHGTrainingLib.evaluation.run import EvaluationOptions

DEBUG = "LNHG_DEBUG"
"""Environment variable: set, an unexpected failure shows its traceback, as in `lnhg`."""

INSTALL = "python -m LNHGLib.packages install training"
INSTALLED = [package.module for package in package_list.needed(["training"])]

TEXTS = ("name", "description")
"""What `second` can change in a card beside the generator."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `lnhg-train` and return its exit status."""
    use_huge_pages()
    try:
        options = _parser().parse_args(arguments)
        with sigterm.breaking_off():
            options.run(options)
    except InputError as error:
        return _fail(error, 2)
    except sigterm.Stopped as stop:
        return _fail(stop, sigterm.STATUS)
    except sigterm.BrokenOff:
        return _fail("Stopped by SIGTERM before it was done; give the same command again.", sigterm.STATUS)
    except (Cancelled, KeyboardInterrupt):
        return _fail("Cancelled.", 1)
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        if isinstance(error, ModuleNotFoundError) and error.name in INSTALLED:
            return _fail(f"{error.name} is not installed: run {INSTALL}, in 3D Slicer by PythonSlicer.", 1)
        return _fail(f"failed: {type(error).__name__}: {error}; set {DEBUG}=1 to see where.", 1)
    return 0


def _fail(message: object, status: int) -> int:
    sys.stdout.flush()
    print(f"lnhg-train: {' '.join(str(message).split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lnhg-train", description="Train, evaluate and export LNHG models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    prepare.add_prepare(commands.add_parser("prepare", help="make training data of CTs and outlines"))
    prepare.add_folds(commands.add_parser("folds", help="split prepared data by patient"))
    _add_train(commands.add_parser("train", help="train a branch from a configuration"))
    _add_mine(commands.add_parser("mine", help="find places that a model takes for nodules, to train on as negatives"))
    baselines.add_nnunet(commands.add_parser("nnunet", help="train nnU-Net on one fold, to compare with"))
    _add_evaluate(commands.add_parser("evaluate", help="score a model on crops or on whole scans"))
    _add_calibrate(commands.add_parser("calibrate", help="choose a model's thresholds on validation crops"))
    _add_export(commands.add_parser("export", help="make a model folder from the checkpoints of both branches"))
    _add_second(commands.add_parser("second", help="give a model a second generator, for another look at each finding"))
    studies.add_commands(commands)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("branch", choices=("segmenter", "detector"), help="which network")
    _add_config(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT, if there is one")
    parser.add_argument("--device", default="cpu", help="cpu (default), auto, cuda (under torchrun one each) or cuda:N")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the run")
    parser.set_defaults(run=_train)


def _add_mine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name of a model, or its folder")
    _add_config(parser)
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("out", type=Path, metavar="OUT.csv", help="table to write, for data.hard_negatives")
    parser.set_defaults(run=_mine)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (TOML)")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder with crops/ and background/")
    parser.add_argument("--fold", type=int, metavar="N", help="validate on this fold, train on the others")
    _add_set(parser)


def _add_set(parser: argparse.ArgumentParser) -> None:
    text = "change a value of the configuration, as in loss.mse=0; may be repeated"
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name of a model, or its folder")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--crops", type=Path, metavar="FILE.h5", help="crops around nodules (location given)")
    source.add_argument("--scans", type=Path, metavar="FOLDER", help="folder of whole scans with outlines")
    parser.add_argument("--table", type=Path, metavar="FILE.csv", help="table of the crops")
    parser.add_argument("--folds", type=_numbers, metavar="N[,N]", help="these folds alone (crops)")
    parser.add_argument("--min-readers", type=int, default=3, metavar="N", help="fewest readers (crops; default 3)")
    parser.add_argument("--include-scan-test", action="store_true", help="also crops of the test scans")
    parser.add_argument("--limit", type=int, metavar="N", help="score the first N crops or scans only")
    parser.add_argument("--data-name", metavar="TEXT", help="how the reports call the data")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--write-card", action="store_true", help="put the results into the model's card and README")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables, summary and plots")
    parser.set_defaults(run=_evaluate)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("segmenter", type=Path, metavar="SEGMENTER", help="checkpoint of the segmenter")
    parser.add_argument("detector", type=Path, metavar="DETECTOR", help="checkpoint of the detector")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="description of the model (TOML)")
    _add_set(parser)
    parser.add_argument("out", type=Path, metavar="OUT", help="model folder to write")
    parser.set_defaults(run=_export)


def _add_second(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name of a model, or its folder; it stays as it is")
    for text in TEXTS:
        parser.add_argument(f"--{text}", metavar="TEXT", help="in the new card (default: as it is)")
    parser.add_argument("segmenter", type=Path, metavar="SEGMENTER", help="checkpoint of another segmenter")
    parser.add_argument("out", type=Path, metavar="OUT", help="model folder to write; calibrate it next")
    parser.set_defaults(run=_second)


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="name of a model, or its folder; its card is rewritten")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder with crops/")
    parser.add_argument("--false-per-scan", type=float, default=2.0, metavar="N", help="rate allowed (default 2)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.set_defaults(run=_calibrate)


def _require(path: Path, what: str, folder: bool = False) -> None:
    if not (path.is_dir() if folder else path.is_file()):
        raise InputError(f"{path} does not exist, expected {what}; check the path.")


def _configured(options: argparse.Namespace) -> dict:
    config = settings.read(options.config)
    if options.fold is not None:
        config = settings.hold_out(config, options.fold)
    config = settings.override(config, options.settings)
    _require(options.data, "a folder with crops/ and background/", folder=True)
    config.setdefault("data", {})["folder"] = str(options.data)
    return config


def _mine(options: argparse.Namespace) -> None:
    config = _configured(options)
    from LNHGLib.models import folder as models
    from LNHGLib.segmentation.pipeline import choose_device

    from LNHGTrainingLib.data import hard_negatives
    from LNHGTrainingLib.data.background import load_sources

    model, where = models.load(options.model), choose_device(options.device)
    hard_negatives.check(model, options.out)
    sources = load_sources(config["data"] | {"hard_negatives": ""}, options.out.parent / "cache")
    count = hard_negatives.mine(model, sources.train, sources.backgrounds, options.out, where)
    print(f"{options.out}: {count} places")


def _train(options: argparse.Namespace) -> None:
    config = _configured(options)
    if options.branch == "segmenter":
        from LNHGTrainingLib.training.segmenter import train
    else:
        from LNHGTrainingLib.training.detector import train
    best = train(config, options.out, options.resume, options.device)
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of this process
        print(best)


def _export(options: argparse.Namespace) -> None:
    for path in (options.segmenter, options.detector):
        _require(path, "a checkpoint that training wrote")
    config = settings.override(settings.read(options.config), options.settings)
    from LNHGTrainingLib.release.export import export

    export(options.segmenter, options.detector, config, options.out)
    print(options.out)


def _second(options: argparse.Namespace) -> None:
    _require(options.segmenter, "a checkpoint that training wrote")
    from LNHGLib.models import folder as models

    from LNHGTrainingLib.release.export import add_second

    texts = {text: given for text in TEXTS if (given := getattr(options, text))}
    add_second(models.load(options.model), options.segmenter, options.out, texts)
    print(options.out)


def _calibrate(options: argparse.Namespace) -> None:
    _require(options.data, "a folder with crops/", folder=True)
    from LNHGLib.models import folder as models
    from LNHGLib.segmentation.pipeline import choose_device
    from tqdm import tqdm

    from LNHGTrainingLib.release import calibrate, model_card

    model, where = models.load(options.model), choose_device(options.device)
    crops = calibrate.validation_crops(model, options.data)
    seen = calibrate.predict_crops(model, tqdm(crops, unit="nodule", disable=None), where)
    chosen = calibrate.choose(seen, model.card, options.false_per_scan)
    chosen.pop("results", None)  # they were measured at the former thresholds
    model_card.write(model.folder, chosen)
    print(model.folder / "model.json")


def _evaluate(options: argparse.Namespace) -> None:
    _check_evaluation(options)
    from LNHGLib.files.atomic import require_free
    from LNHGLib.models import folder as models

    from LNHGTrainingLib import output_files
    from LNHGTrainingLib.evaluation import markdown
    from LNHGTrainingLib.release import model_card

    require_free(options.out, options.overwrite, output_files.EVALUATION)
    model = models.load(options.model)
    report = _evaluate_crops(model, options) if options.crops else _evaluate_scans(model, options)
    if options.write_card:
        model_card.update(model.folder, report)
    print(markdown.render(report))
    print(options.out)


def _check_evaluation(options: argparse.Namespace) -> None:
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit is {options.limit}, expected 1 or more.")
    if options.min_readers < 1:
        raise InputError(f"--min-readers is {options.min_readers}, expected 1 or more.")
    if options.scans:
        _require(options.scans, "a folder of cases", folder=True)
        if options.table or options.folds is not None or options.include_scan_test:
            raise InputError("--table, --folds and --include-scan-test go with --crops; leave them out with --scans.")
        return
    if options.table is None:
        raise InputError("--crops was given without --table, expected the table of the crops; add --table FILE.csv.")
    _require(options.crops, "an HDF5 file of crops")
    _require(options.table, "the table of the crops")


def _evaluate_crops(model: "Model", options: argparse.Namespace) -> dict:
    from LNHGLib.segmentation.pipeline import choose_device

    from LNHGTrainingLib.evaluation import run
    from LNHGTrainingLib.evaluation.crops import Selection

    selection = Selection(options.folds, options.min_readers, options.include_scan_test, options.limit)
    predict = run.model_predictor(model, choose_device(options.device))
    return run.run_crops(
        model.card, predict, options.crops, options.table, options.out, selection, _evaluation_options(options)
    )


def _evaluate_scans(model: "Model", options: argparse.Namespace) -> dict:
    from LNHGLib.segmentation.pipeline import choose_device

    from LNHGTrainingLib.evaluation import run

    choose_device(options.device)
    threshold = min(run.FROC_THRESHOLD, model.card["threshold"])
    segment = run.pipeline_segmenter(model, options.device, threshold)
    return run.run_scans(model.card, segment, options.scans, options.out, options.limit, _evaluation_options(options))


def _evaluation_options(options: argparse.Namespace) -> "EvaluationOptions":
    from LNHGTrainingLib.evaluation.run import EvaluationOptions

    return EvaluationOptions(options.seed, options.data_name, options.overwrite)


if __name__ == "__main__":
    sys.exit(main())
