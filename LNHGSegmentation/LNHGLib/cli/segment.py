"""The command `lnhg segment`; others take its options and the way from a CT to its results."""

import argparse
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.cli.console import Stop, count, part_of, progress_printer, say
from LNHGLib.errors import InputError
from LNHGLib.models import folder

if TYPE_CHECKING:
    from LNHGLib.image.volume import Volume
    from LNHGLib.segmentation.pipeline import Result


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
    parser = commands.add_parser("segment", help="find the nodules of a chest CT")
    parser.add_argument("ct", metavar="CT", type=Path, help="DICOM folder or file, .nii, .nii.gz, .nrrd, .mha or .mhd")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write the results into")
    parser.add_argument("--series", metavar="UID", help="series to take of several in a folder; UID#2: its 2nd volume")
    parser.add_argument("--overwrite", action="store_true", help="replace the results in OUT")
    parser.add_argument(
        "--at",
        metavar="L,P,S",
        type=_place,
        help="outline only the nodule at this place in mm, by the segmenter alone; as --at=-31.5,20,104.2",
    )
    add_model_options(parser)
    parser.set_defaults(run=run)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that run the networks."""
    parser.add_argument("--device", default="auto", type=_device, help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=folder.RUNTIMES,
        help="what computes: auto (default: OpenVINO on a CPU where it is installed, else torch), torch or openvino",
    )
    parser.add_argument("--exact", action="store_true", help="compute in float32, also where bfloat16 is faster")
    parser.add_argument("--model", metavar="NAME|FOLDER", help="default: the first of lnhg models list")
    parser.add_argument("--threshold", metavar="S", type=_score, help="lowest score kept, 0 to 1; default: the model's")
    parser.add_argument("--json", action="store_true", help="progress as PROGRESS lines on stdout")


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


def run(options: argparse.Namespace, stop: Stop) -> None:
    """Run the command.

    Args:
        options: Of the command line.
        stop: The wish of the user to stop.
    """
    if not options.ct.exists():
        raise InputError(f"{options.ct} does not exist; give a chest CT as a DICOM folder or an image file.")
    require_writable(options.out, options.overwrite, options.ct)

    def read(meanwhile: Callable[[], object]) -> "Volume":
        from LNHGLib.image.reader import read_volume

        return read_volume(options.ct, options.series, part=bool(options.at), meanwhile=meanwhile)

    result = segment_and_write(options, stop, read, options.overwrite)
    if not options.json:
        for warning in result.report["warnings"]:
            say(f"lnhg: note: {warning}")
        print(f"{count(len(result.nodules), 'nodule')} in {options.ct}; results are in {options.out}")


def require_writable(out: Path, overwrite: bool, ct: Path | None = None) -> None:
    """Refuse a folder that cannot or should not be written, before anything is computed.

    Args:
        out: Folder to write the results into.
        overwrite: Whether results there may be replaced.
        ct: The CT, which must not lie in it.

    Raises:
        InputError: It cannot or should not be written.
    """
    from LNHGLib.files.atomic import require_free, temporary_folder
    from LNHGLib.results.files import FILES

    if ct and ct.resolve().is_relative_to(out.resolve()):
        raise InputError(f"OUT {out} holds the CT itself, expected a folder of its own; give another OUT.")
    require_free(out, overwrite, FILES)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with temporary_folder(parent):
            pass
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror} in {parent}); give an OUT in a folder you may write to."
        ) from error


def segment_and_write(
    options: argparse.Namespace, stop: Stop, read: "Callable[[Callable[[], object]], Volume]", overwrite: bool
) -> "Result":
    """Read, segment and write; what computes and writes is loaded and checked before anything is computed.

    Args:
        options: Of the command: `out`, those of `add_model_options`, and maybe `at`.
        stop: The user's wish to stop.
        read: Returns the CT; it may call what it is given while it waits for other processes or threads.
        overwrite: Whether results in OUT may be replaced.
    """
    began, progress = time.perf_counter(), progress_printer(options.json)
    progress(0.0, "Loading the model")
    model = folder.load(options.model)

    @functools.cache
    def load() -> "tuple[Callable[..., Result], Callable[[Result, Path, bool], None]]":
        from LNHGLib.results.writer import write_result
        from LNHGLib.segmentation.runtime import choose_runtime

        where = choose_runtime(options.device, model, options.runtime, options.exact)
        if getattr(options, "at", None):
            from LNHGLib.segmentation.point_prompt import segment_at

            return functools.partial(segment_at, device=where, place_lps_mm=options.at), write_result
        from LNHGLib.segmentation.pipeline import segment

        return functools.partial(segment, device=where, threshold=options.threshold), write_result

    progress(0.01, "Reading the CT")
    reading = time.perf_counter()
    volume = read(load)
    seconds = round(time.perf_counter() - reading, 3)
    find, write = load()
    result = find(volume, model, progress=part_of(progress, 0.05, 0.95), cancelled=stop.wished)
    result.report["seconds"] = {"read": seconds, **result.report["seconds"]}
    progress(0.95, "Writing the results")
    stop.writing = True
    write(result, options.out, overwrite)
    if not getattr(options, "at", None):
        keep_run_time(result, time.perf_counter() - began)
    progress(1.0, "Done")
    return result


def keep_run_time(result: "Result", whole_s: float) -> None:
    """Note how long a run took, for what the panel says of the next one.

    Args:
        result: Of the run.
        whole_s: Seconds that the command took.
    """
    from LNHGLib.results import run_times

    volume, device, stages_s = result.volume, result.report["device"], sum(result.report["seconds"].values())
    name = "cpu" if device["used"] == "cpu" else device["name"]
    liters = run_times.lung_liters(volume.array, volume.grid.spacing_mm)
    run = run_times.Run(round(liters, 3), round(whole_s - stages_s, 3), round(stages_s, 3))
    run_times.keep(result.report["model"]["name"], device["runtime"], name, run)
