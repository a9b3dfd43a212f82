"""The commands of `lnhg-train` that train networks and make model folders: train, mine, export, second, part."""

import argparse
import os
from importlib import import_module
from pathlib import Path

from LNHGTrainingLib import config as settings
from LNHGTrainingLib.cli.options import add_device, require_path

CARD_TEXTS = ("name", "description")
"""What `second` and `part` can change in a card beside the network."""
PARTS = ("generator", "second_generator", "detector", "classifier")
BRANCHES = ("segmenter", "detector", "classifier", "nodulenet", "injector")
CHECKPOINT = "a checkpoint that training wrote"
NONE = Path("none")
"""What `export` takes in place of a detector for a system that has none."""


def add_training(commands: "argparse._SubParsersAction") -> None:
    """Add `train` and `mine` to the parser of `lnhg-train`.

    Args:
        commands: Its subparsers.
    """
    parser = commands.add_parser("train", help="train a network from a configuration")
    parser.add_argument("branch", choices=BRANCHES, help="which network")
    _add_config(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT, if there is one")
    parser.add_argument("--device", default="cpu", help="cpu (default), auto, cuda (under torchrun one each) or cuda:N")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the run")
    parser.set_defaults(run=train)

    parser = commands.add_parser("mine", help="find places that a model takes for nodules, to train on as negatives")
    parser.add_argument("--model", required=True, help="name of a model, or its folder")
    _add_config(parser)
    add_device(parser)
    parser.add_argument("out", type=Path, metavar="OUT.csv", help="table to write, for data.hard_negatives")
    parser.set_defaults(run=mine)


def add_release(commands: "argparse._SubParsersAction") -> None:
    """Add `export`, `second` and `part` to the parser of `lnhg-train`.

    Args:
        commands: Its subparsers.
    """
    parser = commands.add_parser("export", help="make a model folder from the checkpoints of both branches")
    parser.add_argument("segmenter", type=Path, metavar="SEGMENTER", help="checkpoint of the segmenter")
    parser.add_argument("detector", type=Path, metavar="DETECTOR", help=f"checkpoint of the detector, or `{NONE}`")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="description of the model (TOML)")
    _add_set(parser)
    parser.add_argument("out", type=Path, metavar="OUT", help="model folder to write")
    parser.set_defaults(run=export)

    parser = commands.add_parser("second", help="give a model a second generator, for another look at each finding")
    parser.add_argument("--model", required=True, help="name of a model, or its folder; it stays as it is")
    for text in CARD_TEXTS:
        parser.add_argument(f"--{text}", metavar="TEXT", help="in the new card (default: as it is)")
    parser.add_argument("checkpoint", type=Path, metavar="SEGMENTER", help="checkpoint of another segmenter")
    parser.add_argument("out", type=Path, metavar="OUT", help="model folder to write; calibrate it next")
    parser.set_defaults(run=add_part, part="second_generator")

    parser = commands.add_parser("part", help="give a model another network, or its classifier")
    parser.add_argument("part", choices=PARTS, help="which part of the card")
    parser.add_argument("--model", required=True, help="name of a model, or its folder; it stays as it is")
    for text in CARD_TEXTS:
        parser.add_argument(f"--{text}", metavar="TEXT", help="in the new card (default: as it is)")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint of such a network")
    parser.add_argument("out", type=Path, metavar="OUT", help="model folder to write; calibrate it next")
    parser.set_defaults(run=add_part)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (TOML)")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder with crops/ and background/")
    parser.add_argument("--fold", type=int, metavar="N", help="validate on this fold, train on the others")
    _add_set(parser)


def _add_set(parser: argparse.ArgumentParser) -> None:
    text = "change a value of the configuration, as in loss.mse=0; may be repeated"
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=text)


def _read_config(options: argparse.Namespace) -> dict:
    """Return the configuration with the fold, the settings and the data folder of the command line."""
    config = settings.read(options.config)
    if options.fold is not None:
        config = settings.hold_out(config, options.fold)
    config = settings.override(config, options.settings)
    require_path(options.data, "a folder with crops/ and background/", folder=True)
    config.setdefault("data", {})["folder"] = str(options.data)
    return config


def train(options: argparse.Namespace) -> None:
    """Train a branch and print its best checkpoint."""
    config = _read_config(options)
    branch = import_module(f"LNHGTrainingLib.training.{options.branch}")
    best = branch.train(config, options.out, options.resume, options.device)
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of this process
        print(best)


def mine(options: argparse.Namespace) -> None:
    """Write the places on the training scans that a model takes for nodules and that are none."""
    config = _read_config(options)
    from LNHGLib.models import folder as models
    from LNHGLib.segmentation.devices import choose_device

    from LNHGTrainingLib.data import hard_negatives
    from LNHGTrainingLib.data.background import load_sources

    model, where = models.load(options.model), choose_device(options.device)
    hard_negatives.check(model, options.out)
    data = settings.build(settings.Data, config["data"] | {"hard_negatives": ""}, "data.")
    sources = load_sources(data, options.out.parent / "cache")
    count = hard_negatives.mine(model, sources.train, sources.backgrounds, options.out, where)
    print(f"{options.out}: {count} places")


def export(options: argparse.Namespace) -> None:
    """Make a model folder from two checkpoints."""
    detector = None if options.detector == NONE else options.detector
    for path in (options.segmenter, *([detector] if detector else [])):
        require_path(path, CHECKPOINT)
    config = settings.override(settings.read(options.config), options.settings)
    from LNHGTrainingLib.release.export import export as export_model

    export_model(options.segmenter, detector, config, options.out)
    print(options.out)


def add_part(options: argparse.Namespace) -> None:
    """Make a model folder from a model and a checkpoint of one network."""
    require_path(options.checkpoint, CHECKPOINT)
    from LNHGLib.models import folder as models

    from LNHGTrainingLib.release import export

    texts = {text: given for text in CARD_TEXTS if (given := getattr(options, text))}
    export.add_part(models.load(options.model), options.part, options.checkpoint, options.out, texts)
    print(options.out)
