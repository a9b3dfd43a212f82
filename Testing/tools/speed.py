"""Measure how the time and memory of LNHG grow with the CT and how jobs share the cores, and the paper's networks.

    python Testing/tools/speed.py growth CT       # more slices, taller chests -> Resources/Studies/growth.json
    python Testing/tools/speed.py jobs CT         # lnhg batch with one job and two -> Resources/Studies/jobs.json
    python Testing/tools/speed.py networks        # torch beside OpenVINO -> Resources/Studies/networks.json
    python Testing/tools/speed.py published CT ... # beside the published networks -> Resources/Studies/published.json
    python Testing/tools/speed.py systems CT SYSTEM=MODEL ...  # lnhg segment -> Resources/Studies/systems/seconds.json

Each run of a command is a process of its own. Testing/tools/result_tables.py writes the tables into docs/.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from LNHGLib.files.text import markdown_table, read_json, write_json
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume, canonical, resample, to_sitk

ROOT = Path(__file__).parents[2]
STUDIES, PLOT = ROOT / "Resources" / "Studies", ROOT / "Resources" / "Plots" / "growth.png"
SLICES = (133, 300, 600, 1200)
HEIGHTS_MM = (300, 400, 500, 600)
TALL_MM = 300
NETWORKS = {"slab of 3 x 256 x 256": (1, 1, 3, 256, 256), "slab of 3 x 48 x 48": (1, 1, 3, 48, 48)}
COLORS = ("#1b6ca8", "#d95f02")


def measured_command(arguments: list[str]) -> dict[str, float]:
    """Run a command of `lnhg` in a new process; return its seconds, those of the CPU and its peak memory in GB.

    Args:
        arguments: of the command line.
    """
    began = time.perf_counter()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        cpu_s, peak_mb = pool.submit(run_command, arguments).result()
    return {"seconds": time.perf_counter() - began, "cpu_s": cpu_s, "peak_gb": peak_mb * 2**20 / 1e9}


def run_command(arguments: list[str]) -> tuple[float, float]:
    """Run a command in this process; return the seconds of CPU, its own processes' too, and the peak memory in MiB."""
    from LNHGLib.__main__ import main
    from LNHGLib.batch.peak_memory import peak_mb

    if main(arguments) != 0:
        raise RuntimeError(f"lnhg {' '.join(arguments)} failed.")
    return sum(os.times()[:4]), peak_mb() or 0.0


# Growth ---------------------------------------------------------------------------------------------------------------


def with_slices(volume: Volume, slices: int) -> Volume:
    """Return a canonical CT resampled to a number of slices over the same height.

    Args:
        volume: a CT.
        slices: their number.
    """
    return _resampled(volume, volume.grid.shape[0] / slices, slices)


def made_tall(volume: Volume, height_mm: int) -> Volume:
    """Return a canonical CT at slices of 1 mm, mirrored at its upper end as often as it takes, of a height.

    Args:
        volume: a CT.
        height_mm: its new height.
    """
    thickness = volume.grid.spacing_mm[0]
    fine = _resampled(volume, 1 / thickness, int(volume.grid.shape[0] * thickness))
    rows = np.arange(height_mm) % (2 * len(fine.array))
    rows = np.where(rows < len(fine.array), rows, 2 * len(fine.array) - 1 - rows)
    array = fine.array[rows]
    return replace(fine, array=array, grid=Grid(array.shape, fine.grid.affine))


def _resampled(volume: Volume, step: float, slices: int) -> Volume:
    """Slices that lie `step` old ones apart, the first one's lower face where it was."""
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (step - 1) / 2
    affine[:3, 0] *= step
    grid = Grid((slices, *volume.grid.shape[1:]), affine)
    ends = np.pad(volume.array, ((1, 1), (0, 0), (0, 0)), mode="edge")  # so that both outer halves have values
    around = volume.grid.affine.copy()
    around[:3, 3] -= around[:3, 0]
    values = resample(ends, Grid(ends.shape, around), grid)
    return replace(volume, array=np.rint(values).astype(np.int16), grid=grid)


def growth(options: argparse.Namespace) -> dict:
    """Segment a CT at more and more slices, and at more and more height.

    Args:
        options: of the command line.
    """
    volume = canonical(read_volume(options.ct))
    kinds: dict[str, tuple[Callable[[Volume, int], Volume], Sequence[int]]] = {
        "slices": (with_slices, options.slices),
        "height_mm": (made_tall, options.heights),
    }
    lines, warm = [], False
    for kind, (make, sizes) in kinds.items():
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                made, path = make(volume, size), Path(folder) / "ct.nrrd"
                sitk.WriteImage(to_sitk(made.array, made.grid), str(path))
                shape, spacing = made.grid.shape, made.grid.spacing_mm
                del made
                command = ["segment", str(path), f"{folder}/out", "--device", "cpu", "--overwrite"]
                command += ["--model", options.model] if options.model else []
                if not warm:  # networks are compiled at their first use
                    measured_command(command)
                    warm = True
                line = {"kind": kind, "slices": shape[0], "height_mm": shape[0] * spacing[0]}
                line |= measured_command(command)
                report = read_json(Path(folder) / "out" / "report.json")
                lines.append(line | {"stages": report["seconds"]})
                print(lines[-1], flush=True)
    plot_growth(lines).savefig(options.plot, dpi=150)
    return {"kind": "growth", "ct": options.ct.resolve().parent.name, "model": report["model"]["name"], "lines": lines}


def plot_growth(lines: Sequence[dict]):
    """Plot seconds and peak memory over slices and over height.

    Args:
        lines: of the study.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for row, (key, name) in enumerate((("seconds", "seconds"), ("peak_gb", "peak memory, GB"))):
        for column, (kind, label) in enumerate((("slices", "slices"), ("height_mm", "height of the chest, mm"))):
            axes, some = figure.add_subplot(2, 2, 1 + 2 * row + column), [x for x in lines if x["kind"] == kind]
            axes.plot([x[kind] for x in some], [x[key] for x in some], "o-", color=COLORS[row])
            high = 1.1 * max(x[key] for x in some)
            axes.set(xlabel=label, ylabel=name, ylim=(0, high), xlim=(0, 1.05 * some[-1][kind]))
            axes.grid(alpha=0.3)
    return figure


# Jobs -----------------------------------------------------------------------------------------------------------------


def jobs(options: argparse.Namespace) -> dict:
    """Run `lnhg batch` over copies of a CT with one job and with two, in turn.

    Args:
        options: of the command line.
    """
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder) / "scans"
        scans.mkdir()
        for number in range(options.copies):
            name = f"copy-{number}{''.join(options.ct.suffixes[-2:])}"
            (shutil.copytree if options.ct.is_dir() else shutil.copyfile)(options.ct, scans / name)
        for number in range(options.repeats):
            for count in (1, 2) if number % 2 == 0 else (2, 1):
                out = Path(folder) / f"out-{number}-{count}"
                command = ["batch", str(scans), str(out), "--jobs", str(count), "--device", "cpu"]
                command += ["--model", options.model] if options.model else []
                if not lines:
                    measured_command(["segment", str(scans / name), f"{folder}/first", *command[5:]])
                measured = measured_command(command)
                lines.append({"jobs": count, "seconds": measured["seconds"], "cpu_s": measured["cpu_s"]})
                print(lines[-1], flush=True)
    return {"kind": "jobs", "ct": options.ct.resolve().parent.name, "scans": options.copies, "lines": lines}


# The paper's networks -------------------------------------------------------------------------------------------------


def networks(options: argparse.Namespace) -> dict:
    """Time the paper's generator by torch and by OpenVINO in turn, and a slice of the paper's detector by torch.

    Args:
        options: of the command line.
    """
    from LNHGLib.cli import benchmark
    from LNHGLib.models import openvino_network
    from LNHGLib.models.torch_network import TorchNetwork
    from safetensors.torch import save

    generator, detector = benchmark.published_generator(), benchmark.published_detector()
    on_openvino = openvino_network.load("generator", {"kind": "paper"}, save(generator.state_dict()))
    both = {"torch": TorchNetwork(generator), "openvino": on_openvino}
    lines = []
    for name, shape in NETWORKS.items():
        slab = np.random.default_rng(0).random(shape, np.float32)
        outputs = {key: network.predict(slab, lambda: None) for key, network in both.items()}
        calls = {
            key: (lambda network=network, slab=slab: network.predict(slab, lambda: None))
            for key, network in both.items()
        }
        apart = float(np.abs(outputs["torch"] - outputs["openvino"]).max())
        lines.append({"network": f"generator, {name}", **in_turn(calls, options.repeats), "apart": apart})
        print(lines[-1], flush=True)
    image = np.random.default_rng(0).random(benchmark.SLICE, np.float32)
    call = {"torch": lambda: TorchNetwork(detector).detect([image], lambda: None)}
    lines.append({"network": "detector, slice of 600 x 600 px, 300 proposals", **in_turn(call, options.repeats)})
    return {"kind": "networks", "repeats": options.repeats, "lines": lines}


def systems(options: argparse.Namespace) -> dict:
    """Time `lnhg segment` of a CT by the models of systems, in turn; systems that are not named keep their seconds.

    Args:
        options: of the command line.
    """
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.repeats):
            for pair in options.models:
                name, _, model = pair.partition("=")
                out = str(Path(scratch) / f"{name} {number}")
                run = measured_command(["segment", str(options.ct), out, "--model", model, "--device", "cpu"])
                times.setdefault(name, []).append(run["seconds"])
                print(name, run, flush=True)
    ct = options.ct.resolve().parent.name
    earlier = read_json(options.out) if options.out.is_file() else {}
    kept = earlier["seconds"] if (earlier.get("kind"), earlier.get("ct")) == ("systems", ct) else {}
    return {"kind": "systems", "ct": ct, "seconds": kept | times}


def published(options: argparse.Namespace) -> dict:
    """Time LNHG beside the published networks on CTs, and on the first one at 300 slices of 1 mm.

    Args:
        options: of the command line.
    """
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        tall, out = Path(scratch) / "ct.nrrd", Path(scratch) / "report.json"
        made = made_tall(canonical(read_volume(options.cts[0])), TALL_MM)
        sitk.WriteImage(to_sitk(made.array, made.grid), str(tall))
        for ct in [*options.cts, tall]:
            name = next(part for part in reversed(ct.resolve().parts) if part not in ("dicom", ct.name))
            name = f"{options.cts[0].resolve().parent.name} at slices of 1 mm" if ct == tall else name
            words = [str(ct), "--published", "--repeats", str(options.repeats), "--out", str(out)]
            measured_command(["benchmark", *words, *(["--model", options.model] if options.model else [])])
            lines.append({**read_json(out), "ct": name})
            print(lines[-1], flush=True)
    return {"kind": "published", "lines": lines}


def in_turn(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Return the median seconds of calls, which are run in turn, and those of the CPU.

    Args:
        calls: by name.
        repeats: of each; one more comes first, which does not count.
    """
    from LNHGLib.cli.benchmark import timed

    rounds = [{name: timed(call) for name, call in calls.items()} for _ in range(1 + repeats)][1:]
    return {
        name: {key: statistics.median(one[name][key] for one in rounds) for key in ("seconds", "cpu_s")}
        for name in calls
    }


# Tables ---------------------------------------------------------------------------------------------------------------


def _growth_table(study: dict) -> str:
    rows = [
        [
            {"slices": "same chest, more slices", "height_mm": "taller chest, slices of 1 mm"}[line["kind"]],
            line["slices"],
            f"{line['height_mm']:.0f}",
            *(f"{line[key]:.{digits}f}" for key, digits in (("seconds", 0), ("cpu_s", 0), ("peak_gb", 2))),
        ]
        for line in study["lines"]
    ]
    header = ["CT", "slices", "height, mm", "seconds", "CPU seconds", "peak memory, GB"]
    return markdown_table(header, rows)


def _jobs_table(study: dict) -> str:
    rows = []
    for count in sorted({line["jobs"] for line in study["lines"]}):
        some = [line for line in study["lines"] if line["jobs"] == count]
        seconds, cpu_s = (statistics.median(line[key] for line in some) for key in ("seconds", "cpu_s"))
        per_hour = 3600 * study["scans"] / seconds
        rows.append([count, f"{seconds:.0f}", f"{per_hour:.0f}", f"{cpu_s / study['scans']:.1f}"])
    return markdown_table(["jobs", f"seconds for {study['scans']} scans", "scans an hour", "CPU seconds a scan"], rows)


def _networks_table(study: dict) -> str:
    rows = []
    for line in study["lines"]:
        one, other = line["torch"], line.get("openvino")
        cells = [f"{other['seconds']:.2f}", f"{other['cpu_s']:.2f}"] if other else ["-", "-"]
        ratios = [f"{one[key] / other[key]:.2f}" if other else "-" for key in ("seconds", "cpu_s")]
        apart = f"{line['apart']:.0e}" if other else "-"
        rows.append([line["network"], f"{one['seconds']:.2f}", f"{one['cpu_s']:.2f}", *cells, *ratios, apart])
    header = ["network", "torch, s", "torch, CPU s", "OpenVINO, s", "OpenVINO, CPU s"]
    return markdown_table([*header, "ratio, s", "ratio, CPU s", "largest difference"], rows)


def _published_table(study: dict) -> str:
    from LNHGLib.cli.benchmark import published_seconds

    rows, names = [], list(study["lines"][0]["seconds"])
    for line in study["lines"]:
        theirs_s = published_seconds(line)
        ours = [statistics.median(sum(run.values()) for run in line["seconds"][name]) for name in names]
        cells = [cell for seconds in ours for cell in (f"{seconds:.1f}", f"{theirs_s / seconds:.0f}")]
        rows.append([line["ct"], line["slices"], f"{theirs_s:.0f}", *cells])
    header = [text for name in names for text in (f"LNHG, {name}, s", "times as fast")]
    return markdown_table(["CT", "slices", "published networks, s", *header], rows)


def render_in_a_sentence(study: dict) -> str:
    """Return how long LNHG and the published networks take for the first CT of the study `published`."""
    from LNHGLib.cli.benchmark import published_seconds

    line = study["lines"][0]
    *_, exact, fastest = (statistics.median(sum(run.values()) for run in runs) for runs in line["seconds"].values())
    return (
        f"On two cores LNHG takes {fastest:.0f} s for a CT of {line['slices']} slices where they have bfloat16, and "
        f"{exact:.0f} s elsewhere; the networks as they were published would take {published_seconds(line):.0f} s."
    )


def _systems_table(study: dict) -> str:
    return markdown_table(
        ["system", "seconds"], [[name, f"{statistics.median(all_of):.0f}"] for name, all_of in study["seconds"].items()]
    )


TABLES = {
    "growth": _growth_table,
    "jobs": _jobs_table,
    "networks": _networks_table,
    "published": _published_table,
    "systems": _systems_table,
}


def render(study: dict) -> str:
    """Return a study as Markdown."""
    return TABLES[study["kind"]](study)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the study, print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    studies = parser.add_subparsers(required=True, dest="study")
    for study in (growth, jobs, networks, published, systems):
        own = studies.add_parser(study.__name__, help=study.__doc__.splitlines()[0])
        own.set_defaults(measure=study)
        own.add_argument("--out", type=Path, default=STUDIES / f"{study.__name__}.json")
        if study is published:
            own.add_argument("cts", type=Path, nargs="+", metavar="CT")
        elif study is not networks:
            own.add_argument("ct", type=Path, metavar="CT")
        if study in (growth, jobs, published):
            own.add_argument("--model")
        if study is growth:
            own.add_argument("--slices", type=int, nargs="*", default=SLICES)
            own.add_argument("--heights", type=int, nargs="*", default=HEIGHTS_MM, help="in mm")
            own.add_argument("--plot", type=Path, default=PLOT)
        else:
            own.add_argument("--repeats", type=int, default=3)
        if study is systems:
            own.add_argument("models", nargs="+", metavar="SYSTEM=MODEL")
            own.set_defaults(out=STUDIES / "systems" / "seconds.json")
        if study is jobs:
            own.add_argument("--copies", type=int, default=4)
    options = parser.parse_args(words)
    study = {"schema": 1, **options.measure(options)}
    write_json(options.out, study)
    print(render(study))


if __name__ == "__main__":
    main()
