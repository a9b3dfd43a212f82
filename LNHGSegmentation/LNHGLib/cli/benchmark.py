"""The command `lnhg benchmark`: seconds by stage of one runtime against another, measured in turn."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from LNHGLib.cli.console import Stop, count, part_of, progress_printer
from LNHGLib.errors import InputError
from LNHGLib.files.text import markdown_table
from LNHGLib.models import folder

if TYPE_CHECKING:
    from LNHGLib.segmentation.pipeline import Result
    from LNHGLib.segmentation.runtime import Where

Seconds = Mapping[str, float]


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
    parser = commands.add_parser("benchmark", help="measure this computer: seconds by stage, as a table")
    parser.add_argument("ct", metavar="CT", type=Path, nargs="?", help="default: the embedded synthetic chest CT")
    parser.add_argument("--model", metavar="NAME|FOLDER", help="default: the first of lnhg models list")
    parser.add_argument(
        "--device", default="cpu", help="of torch: cpu (default), cuda or cuda:N; OpenVINO's is the CPU"
    )
    parser.add_argument("--repeats", metavar="N", type=int, default=3, help="runs of each runtime (default: 3)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, stop: Stop) -> None:
    """Run the command.

    Args:
        options: Of the command line.
        stop: The wish of the user to stop.
    """
    if options.repeats < 1:
        raise InputError(f"--repeats is {options.repeats}, expected 1 or more; leave it out for three.")
    if options.ct and not options.ct.exists():
        raise InputError(f"{options.ct} does not exist; give a chest CT as a DICOM folder or an image file.")
    from LNHGLib.image.reader import read_volume
    from LNHGLib.phantom.chest import make_phantom
    from LNHGLib.segmentation import pipeline
    from LNHGLib.segmentation.runtime import choose_runtime

    model = folder.load(options.model)
    wheres: dict[str, Where] = {"torch": choose_runtime(options.device, model, "torch")}
    if model.runs_on_openvino():
        wheres[folder.OPENVINO] = folder.OPENVINO
    for where in wheres.values():  # networks are loaded before, so that no run waits for them
        for part in ("generator", folder.SECOND, "detector", "classifier"):
            if part in model.card:
                model.network(part, where)
    volume = read_volume(options.ct) if options.ct else make_phantom().volume
    progress, turns = progress_printer(False), [name for _ in range(options.repeats) for name in wheres]
    results: dict[str, list[Result]] = {name: [] for name in wheres}
    for number, name in enumerate(turns):
        told = part_of(progress, number / len(turns), (number + 1) / len(turns))
        results[name].append(pipeline.segment(volume, model, device=wheres[name], progress=told, cancelled=stop.wished))
    seconds = {name: [result.report["seconds"] for result in some] for name, some in results.items()}
    print(f"Seconds of {model.name}, medians of {count(options.repeats, 'run')} of each runtime in turn:\n")
    print(seconds_table(seconds), end="")
    if len(results) < 2:
        return
    one, other = (some[-1] for some in results.values())
    if len(one.nodules) != len(other.nodules):
        print(f"\nThey found {len(one.nodules)} and {len(other.nodules)} nodules.")
        return
    apart = max((abs(a.score - b.score) for a, b in zip(one.nodules, other.nodules, strict=True)), default=0.0)
    marked = (one.labels > 0).sum() + (other.labels > 0).sum()
    dice = 2 * ((one.labels > 0) & (other.labels > 0)).sum() / max(marked, 1)
    found = count(len(one.nodules), "nodule")
    print(f"\nBoth found {found}: scores differ by {apart:.1e} at most, Dice {dice:.4f}.")


def seconds_table(seconds: Mapping[str, Sequence[Seconds]]) -> str:
    """Return the table: a row per stage and one for all, a column per runtime, the first one's share of the last's.

    Args:
        seconds: of each run by stage, by runtime; all have the same stages.
    """
    runs = {name: [{**run, "all": sum(run.values())} for run in some] for name, some in seconds.items()}
    medians = {
        name: {stage: statistics.median(run[stage] for run in some) for stage in some[0]} for name, some in runs.items()
    }
    first, *others = medians
    rows = []
    for stage in medians[first]:
        ratios = (f"{medians[first][stage] / max(medians[name][stage], 1e-3):.2f}" for name in others)
        rows.append([stage, *(f"{medians[name][stage]:.1f}" for name in medians), *ratios])
    return markdown_table(["stage", *medians, *(f"{first} / {name}" for name in others)], rows)
