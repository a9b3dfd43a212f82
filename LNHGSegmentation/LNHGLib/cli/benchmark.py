"""The command `lnhg benchmark`: seconds by stage of one runtime against another, measured in turn."""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LNHGLib.cli.console import Stop, count, part_of, progress_printer
from LNHGLib.errors import InputError
from LNHGLib.files.text import markdown_table, write_json
from LNHGLib.models import folder

if TYPE_CHECKING:
    from torch import nn

    from LNHGLib.segmentation.pipeline import Result

Seconds = Mapping[str, float]
SLAB, SLICE = (3, 256, 256), (3, 600, 600)
"""What the published generator and detector see at once."""
PROPOSALS, PROPOSALS_BEFORE_NMS = 300, 3000


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Add the command."""
    parser = commands.add_parser("benchmark", help="measure this computer: seconds by stage, as a table")
    parser.add_argument("ct", metavar="CT", type=Path, nargs="?", help="default: the embedded synthetic chest CT")
    parser.add_argument("--model", metavar="NAME|FOLDER", help="default: the first of lnhg models list")
    parser.add_argument(
        "--device", default="cpu", help="of torch: cpu (default), cuda or cuda:N; OpenVINO's is the CPU"
    )
    parser.add_argument("--repeats", metavar="N", type=int, default=3, help="runs of each runtime (default: 3)")
    parser.add_argument("--half", action="store_true", help="also torch in half precision (autocast)")
    parser.add_argument("--published", action="store_true", help="also the networks of the paper, by torch")
    parser.add_argument("--out", metavar="FILE", type=Path, help="keep what was measured as JSON")
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

    model, progress = folder.load(options.model), progress_printer(False)
    ways = ways_to_run(options, model)
    volume = read_volume(options.ct) if options.ct else make_phantom().volume
    published = published_calls(options.device) if options.published else {}
    results: dict[str, list[Result]] = {name: [] for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in published}
    for number in range(options.repeats * len(ways)):
        name = list(ways)[number % len(ways)]
        where, precision = ways[name]
        told = part_of(progress, number / options.repeats / len(ways), (number + 1) / options.repeats / len(ways))
        with precision():
            results[name].append(pipeline.segment(volume, model, device=where, progress=told, cancelled=stop.wished))
        if number % len(ways) == 0:
            for part, call in published.items():
                seconds[part].append(timed(call)["seconds"])
    report = {"schema": 1, "kind": "benchmark", "ct": options.ct and options.ct.name, "model": model.name}
    report |= {"repeats": options.repeats, "slices": len(volume.array)}
    report["seconds"] = {name: [result.report["seconds"] for result in some] for name, some in results.items()}
    report["devices"] = {name: some[-1].report["device"] for name, some in results.items()}
    reference = list(results)[-1]
    report["agreement"] = {
        name: agreement(some[-1], results[reference][-1]) for name, some in results.items() if name != reference
    }
    report["published"] = {part: statistics.median(some) for part, some in seconds.items()}
    print(render(report), end="")
    if options.out:
        write_json(options.out, report)


def ways_to_run(
    options: argparse.Namespace, model: folder.Model
) -> dict[str, tuple[Any, Callable[[], AbstractContextManager]]]:
    """Return on what the networks run and in which precision, by its name; the last one is what others are held to.

    The networks are loaded, so that no run waits for them.

    Args:
        options: Of the command line.
        model: Its networks run.
    """
    from LNHGLib.segmentation.runtime import choose_runtime

    where = choose_runtime(options.device, model, "torch")
    name = "torch" if where.type == "cpu" else f"torch {where.type}"
    ways: dict[str, tuple[Any, Callable[[], AbstractContextManager]]] = {}
    if options.half:
        ways[f"{name} half"] = where, lambda: half_precision(where.type)
    ways[name] = where, nullcontext
    if model.runs_on_openvino():
        ways[folder.OPENVINO] = folder.OPENVINO, nullcontext
        if (fastest := choose_runtime("cpu", model, folder.OPENVINO)) != folder.OPENVINO:
            ways[fastest] = fastest, nullcontext
    elif where.type != "cpu":
        ways["torch"] = choose_runtime("cpu", model, "torch"), nullcontext
    for place, _ in ways.values():
        for part in ("generator", folder.SECOND, "detector", "classifier"):
            if part in model.card:
                model.network(part, place)
    return ways


def half_precision(kind: str) -> AbstractContextManager:
    """Return a context in which torch computes in 16 bits what bears it: float16 on a GPU, bfloat16 on a CPU.

    Args:
        kind: of the device.
    """
    import torch

    return torch.autocast(kind, torch.bfloat16 if kind == "cpu" else torch.float16)


def agreement(result: "Result", reference: "Result") -> dict[str, float]:
    """Return how many nodules two results have, how far their scores are apart at most, and the Dice of their outlines.

    Args:
        result: one.
        reference: the other, of the same CT.
    """
    numbers = len(result.nodules), len(reference.nodules)
    pairs = zip(result.nodules, reference.nodules, strict=False)
    apart = max((abs(one.score - other.score) for one, other in pairs), default=0.0)
    marked = (result.labels > 0).sum() + (reference.labels > 0).sum()
    both = ((result.labels > 0) & (reference.labels > 0)).sum()
    dice = float(2 * both / marked) if marked else 1.0
    return {"nodules": numbers[0], "reference_nodules": numbers[1], "scores_apart": float(apart), "dice": dice}


# The published networks -----------------------------------------------------------------------------------------------


def published_calls(device: str) -> dict[str, Callable[[], object]]:
    """Return what runs the published networks once: the generator on a slab, the detector on a slice.

    Args:
        device: Of torch.
    """
    import numpy as np  # here, as each command's help would wait for it

    from LNHGLib.models.torch_network import TorchNetwork

    generator, detector = (TorchNetwork(make().to(device)) for make in (published_generator, published_detector))
    rng = np.random.default_rng(0)
    slab, image = (rng.random(shape, np.float32) for shape in (SLAB, SLICE))
    return {
        "slab": lambda: generator.predict(slab[None, None], lambda: None),
        "slice": lambda: detector.detect([image], lambda: None),
    }


def published_generator() -> "nn.Module":
    """Return the paper's generator with random weights: what it takes does not depend on them."""
    import torch

    from LNHGLib.models.gan import PaperGenerator

    torch.manual_seed(0)
    return PaperGenerator().eval().requires_grad_(False)


def published_detector() -> "nn.Module":
    """Return the paper's detector with random weights, judging as many proposals as the published program does."""
    import torch

    from LNHGLib.models.detector import build_detector

    torch.manual_seed(0)
    network = build_detector({"backbone": "resnet50-c4"}).eval().requires_grad_(False)
    network.rpn._pre_nms_top_n["testing"] = PROPOSALS_BEFORE_NMS
    network.rpn._post_nms_top_n["testing"] = PROPOSALS
    return network


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Return the seconds that a call takes, and those of the CPU in all threads.

    Args:
        call: what is timed.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    call()
    return {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_began}


def published_seconds(report: Mapping[str, Any]) -> float:
    """Return what the published networks would take for a scan: each slab of three slices and each slice of it.

    Args:
        report: of the command.
    """
    slabs = math.ceil(report["slices"] / SLAB[0])
    return slabs * report["published"]["slab"] + report["slices"] * report["published"]["slice"]


def published_sentence(report: Mapping[str, Any]) -> str:
    """Return how many times as fast as the published networks the last runtime was on a scan.

    Args:
        report: of the command.
    """
    slab_s, slice_s = report["published"]["slab"], report["published"]["slice"]
    slabs = math.ceil(report["slices"] / SLAB[0])
    theirs_s = published_seconds(report)
    name, runs = list(report["seconds"].items())[-1]
    ours_s = statistics.median(sum(run.values()) for run in runs)
    return (
        f"The published networks would take {count(slabs, 'slab')} of {slab_s:.2f} s and "
        f"{count(report['slices'], 'slice')} of {slice_s:.2f} s, {theirs_s:.0f} s in all: {name}'s {ours_s:.1f} s are "
        f"{theirs_s / ours_s:.1f} times as fast."
    )


# The table ------------------------------------------------------------------------------------------------------------


def render(report: Mapping[str, Any]) -> str:
    """Return what was measured as Markdown.

    Args:
        report: of the command.
    """
    names = list(report["seconds"])
    lines = [f"Seconds of {report['model']}, medians of {count(report['repeats'], 'run')} of each runtime in turn:\n"]
    lines.append(seconds_table(report["seconds"]))
    for name, both in report["agreement"].items():
        found, expected = both["nodules"], both["reference_nodules"]
        where = "Both" if len(names) == 2 else f"{name} and {names[-1]}"
        if found != expected:
            who = "They" if len(names) == 2 else f"{name} and {names[-1]}"
            lines.append(f"{who} found {found} and {expected} nodules.\n")
            continue
        apart, dice = both["scores_apart"], both["dice"]
        lines.append(
            f"{where} found {count(found, 'nodule')}: scores differ by {apart:.1e} at most, Dice {dice:.4f}.\n"
        )
    if report["published"]:
        lines.append(published_sentence(report) + "\n")
    return "\n".join(lines)


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
