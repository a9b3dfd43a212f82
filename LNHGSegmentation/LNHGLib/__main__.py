"""The command line `lnhg` with all its commands. Exit status 0 done, 1 failed, 2 wrong input."""

import argparse
import functools
import json
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from LNHGLib import __version__
from LNHGLib.cli import batch, reader_study, report
from LNHGLib.cli.console import Stop, part_of, progress_printer, use_huge_pages
from LNHGLib.errors import Cancelled, InputError, WorkError
from LNHGLib.models import folder as models
from LNHGLib.segmentation import devices

if TYPE_CHECKING:
    from LNHGLib.image.volume import Volume
    from LNHGLib.phantom.chest import Phantom
    from LNHGLib.segmentation.pipeline import Result

DONE, FAILED, WRONG = 0, 1, 2
DEMO_FOLDER = Path("demo-output")
PICTURE = "preview.png"
DEBUG = "LNHG_DEBUG"
"""Environment variable: set, an unexpected failure shows its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    use_huge_pages()
    try:
        options = parse(arguments)
        with Stop().listening() as stop:
            options.run(options, stop)
    except InputError as error:
        return _fail(str(error), WRONG)
    except (Cancelled, WorkError) as error:
        return _fail(str(error), FAILED)
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        return _fail(_unexpected(error), FAILED)
    return DONE


def _unexpected(error: Exception) -> str:
    reason = " ".join(str(error).split()) or "no reason given"
    if isinstance(error, MemoryError):
        return f"the computer's memory does not suffice ({reason}); close other programs and try again."
    if isinstance(error, ImportError):
        return f"a Python package does not load ({reason}); in Slicer press Repair under Set-up, else install again."
    return f"failed: {type(error).__name__}: {reason}; set {DEBUG}=1 to see where."


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments.

    Raises:
        InputError: they are wrong.
    """
    return _parser().parse_args(arguments)


def _fail(sentence: str, status: int) -> int:
    print(f"lnhg: {sentence}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lnhg", description="Find, segment and measure lung nodules on chest CT.")
    parser.add_argument("--version", action="version", version=f"lnhg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    segment = commands.add_parser("segment", help="find the nodules of a chest CT")
    segment.add_argument("ct", metavar="CT", type=Path, help="DICOM folder or file, .nii, .nii.gz, .nrrd, .mha or .mhd")
    segment.add_argument("out", metavar="OUT", type=Path, help="folder to write the results into")
    segment.add_argument("--series", metavar="UID", help="series to take of a DICOM folder that holds several")
    segment.add_argument("--overwrite", action="store_true", help="replace the results in OUT")
    segment.add_argument(
        "--at",
        metavar="L,P,S",
        type=_place,
        help="outline only the nodule at this place in mm, by the segmenter alone; as --at=-31.5,20,104.2",
    )
    segment.set_defaults(run=_segment)

    demo = commands.add_parser("demo", help="find the nodules of the embedded synthetic chest CT")
    demo.add_argument("out", metavar="OUT", type=Path, nargs="?", default=DEMO_FOLDER, help="default: %(default)s")
    demo.set_defaults(run=_demo)

    for command in (segment, demo, batch.add_parser(commands)):
        command.add_argument("--device", default="auto", type=_device, help="auto (default), cpu, cuda or cuda:N")
        command.add_argument("--model", metavar="NAME|FOLDER", help="default: the first of lnhg models list")
        command.add_argument(
            "--threshold", metavar="S", type=_score, help="lowest score kept, 0 to 1; default: the model's"
        )
        command.add_argument("--json", action="store_true", help="progress as PROGRESS lines on stdout")
    report.add_parser(commands)
    reader_study.add_parser(commands)
    devices.add_parser(commands)
    _add_models(commands)
    return parser


def _add_models(commands: "argparse._SubParsersAction") -> None:
    parser = commands.add_parser("models", help="list, show, check or add models")
    parser.set_defaults(run=_list_models)
    actions = parser.add_subparsers(metavar="ACTION")
    actions.add_parser("list", help="a model a line, the default first").set_defaults(run=_list_models)
    for name, text, run in (
        ("show", "print a model's card", _show_model),
        ("verify", "check every file of a model", _verify_model),
        ("add", "copy a model, a folder or a zip of one, to the user's models", _add_model),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("model", metavar="FOLDER|ZIP" if name == "add" else "NAME|FOLDER")
        action.set_defaults(run=run)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"the threshold is {text}, expected a score from 0 to 1")
    return score


def _place(text: str) -> tuple[float, float, float]:
    try:
        place = tuple(float(part) for part in text.split(","))
    except ValueError:
        place = ()
    if len(place) != 3 or not all(map(math.isfinite, place)):
        raise argparse.ArgumentTypeError(f"the place is {text!r}, expected L,P,S in mm, as --at=-31.5,20,104.2")
    return place


def _device(text: str) -> str:
    kind, colon, index = text.partition(":")
    if text not in ("auto", "cpu", "cuda") and not (kind == "cuda" and colon and index.isdecimal()):
        raise argparse.ArgumentTypeError(f"the device is {text!r}, expected auto, cpu, cuda or cuda:N")
    return text


def _segment(options: argparse.Namespace, stop: Stop) -> None:
    if not options.ct.exists():
        raise InputError(f"{options.ct} does not exist; give a chest CT as a DICOM folder or an image file.")
    _check_out(options.out, options.overwrite, options.ct)

    def read() -> "Volume":
        from LNHGLib.image.reader import read_volume

        return read_volume(options.ct, options.series, part=bool(options.at))

    result = _run(options, stop, read, options.overwrite)
    if not options.json:
        for warning in result.report["warnings"]:
            print(f"lnhg: note: {warning}", file=sys.stderr)
        print(f"{_count(len(result.nodules), 'nodule')} in {options.ct}; results are in {options.out}")


def _demo(options: argparse.Namespace, stop: Stop) -> None:
    from LNHGLib.phantom.chest import Phantom, make_phantom

    _check_out(options.out, True)
    made: list[Phantom] = []

    def draw() -> "Volume":
        made.append(make_phantom())
        return made[0].volume

    result = _run(options, stop, draw, True)
    if not options.json:
        print("Nodules of the embedded synthetic chest CT (drawn by this program, no patient):")
        for row in _table(result, made[0]):
            print(row)
        print(options.out / PICTURE)


def _run(options: argparse.Namespace, stop: Stop, read: Callable[[], "Volume"], overwrite: bool) -> "Result":
    """Read, segment and write; the model and the device are checked before anything is computed."""
    progress = progress_printer(options.json)
    progress(0.0, "Loading the model")
    model = models.load(options.model)
    from LNHGLib.results import writer
    from LNHGLib.segmentation import pipeline

    pipeline.choose_device(options.device)
    progress(0.01, "Reading the CT")
    began = time.perf_counter()
    volume = read()
    seconds = round(time.perf_counter() - began, 3)
    find = functools.partial(pipeline.segment, threshold=options.threshold)
    if getattr(options, "at", None):
        from LNHGLib.segmentation.point_prompt import segment_at

        find = functools.partial(segment_at, place_lps_mm=options.at)
    result = find(volume, model, device=options.device, progress=part_of(progress, 0.05, 0.95), cancelled=stop.wished)
    result.report["seconds"] = {"read": seconds, **result.report["seconds"]}
    progress(0.95, "Writing the results")
    stop.writing = True
    writer.write_result(result, options.out, overwrite)
    progress(1.0, "Done")
    return result


def _check_out(out: Path, overwrite: bool, ct: Path | None = None) -> None:
    """Refuse a folder that cannot or should not be written, before anything is computed."""
    from LNHGLib.results import writer

    if ct and ct.resolve().is_relative_to(out.resolve()):
        raise InputError(f"OUT {out} holds the CT itself, expected a folder of its own; give another OUT.")
    writer.check_target(out, overwrite)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".lnhg-", dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror} in {parent}); give an OUT in a folder you may write to."
        ) from error


def _count(number: int, noun: str) -> str:
    return f"{number or 'No'} {noun}{'' if number == 1 else 's'}"


def _table(result: "Result", phantom: "Phantom") -> list[str]:
    """A row a finding, with the synthetic nodule that its centroid lies in."""
    truth = {nodule["label"]: f"{nodule['kind']}, {nodule['diameter_mm']:.0f} mm" for nodule in phantom.nodules}
    rows = [f"{'no':>2}  {'score':>5}  {'long x short mm':>15}  {'found as':<24}  what it is"]
    hit = set()
    for nodule in result.nodules:
        size, kind, label = "-", nodule.provenance, 0
        if nodule.measurement:
            measured = nodule.measurement
            size, kind = (
                f"{measured.long_axis_mm:.1f} x {measured.short_axis_mm:.1f}",
                f"{kind}, {measured.attenuation}",
            )
            index = phantom.volume.grid.lps_to_index(measured.centroid_lps_mm).round().astype(int)
            label = int(phantom.labels[tuple(index)])
        hit |= {label} - {0}
        rows.append(f"{nodule.number:>2}  {nodule.score:5.2f}  {size:>15}  {kind:<24}  {truth.get(label, 'no nodule')}")
    return [*rows, f"{len(hit)} of {len(truth)} synthetic nodules found."]


def _list_models(_options: argparse.Namespace, _stop: Stop) -> None:
    for model in models.available():
        print(f"{model.name}  {model.card['description']}  ({model.folder})")


def _show_model(options: argparse.Namespace, _stop: Stop) -> None:
    print(json.dumps(models.load(options.model).card, indent=2, ensure_ascii=False))


def _verify_model(options: argparse.Namespace, _stop: Stop) -> None:
    model = models.load(options.model)
    print(f"{model.name}: {_count(len(model.card['files']), 'file')} as listed, nothing changed ({model.folder})")


def _add_model(options: argparse.Namespace, _stop: Stop) -> None:
    model = models.add(options.model)
    print(f"{model.name} added to {model.folder}")


if __name__ == "__main__":
    sys.exit(main())
