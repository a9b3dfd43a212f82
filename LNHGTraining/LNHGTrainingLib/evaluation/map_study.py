"""`lnhg-train stability` and `leakage`: the metrics of `map_metrics` over many nodules, by size, with intervals."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations, product
from pathlib import Path

import numpy as np
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.text import markdown_table, write_csv, write_json
from LNHGLib.measurement.signal import STATISTICS, statistics
from LNHGLib.segmentation.preprocessing import normalize

from LNHGTrainingLib import output_files
from LNHGTrainingLib.data.crops import nodule_diameter_mm
from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import map_metrics, metrics
from LNHGTrainingLib.evaluation.crops import Crop, Predict
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, interval
from LNHGTrainingLib.evaluation.summary import GROUPS, to_rounded_json

SIZES = ("all", "under 6 mm", "6 to 10 mm", "10 mm and over")

ABOUT = {
    "stability": (
        "How alike the maps of two generators are inside the readers' consensus, on the same crops. SSIM: Gaussian "
        "window of 1.5 mm, range 1, mean over the nodule's voxels. Spearman: of the nodule's voxels."
    ),
    "leakage": (
        "Whether the map inside the readers' consensus is more than the CT (register L1). With the CT: correlation of "
        "the map G with the CT in the model's window, voxel by voxel; near 1, the map shows the CT. Repeats: the same "
        "crop twice, each with noise drawn anew at the level and smoothness estimated from its own lung; Spearman of "
        "both maps, and of both CTs beside it; SSIM of both maps. The noise of the scan itself stays in both repeats, "
        "so that these figures are upper bounds of what two scans would give. Beyond the CT: Pearson between the "
        "repeats of what is left of the map after a straight line on its CT; near 0, nothing repeatable is left. What "
        "does repeat can be shape, depth or surroundings as well as tissue."
    ),
}
IMAGES = ("map", "CT")
"""What is measured twice inside each nodule: the map, and the CT in the model's window."""
RETEST_NOTE = (
    "Test-retest: the statistics that `nodules.csv` has of the signal, here inside the readers' consensus, of both "
    "repeats of each nodule; ICC(A,1), two-way, absolute agreement, single measurement. Beside the map: the same "
    "statistics of the CT in the model's window."
)


@dataclass(frozen=True)
class MapRow:
    """One row of `maps.csv`: a nodule."""

    patient: str
    series: str
    nodule: str
    diameter_mm: float
    voxels: int


@dataclass(frozen=True)
class StabilityRow(MapRow):
    """Likeness of two generators' maps of a nodule."""

    first: str
    second: str
    ssim: float
    spearman: float


@dataclass(frozen=True)
class LeakageRow(MapRow):
    """A generator's map of a nodule against the CT and against its own repeat; NaN without an estimate of noise.

    `retest` has what `signal.statistics` says of both repeats, by `IMAGES`; nothing without an estimate of noise.
    """

    model: str
    pearson_with_ct: float
    spearman_with_ct: float
    noise_hu: float
    repeat_spearman: float
    repeat_spearman_ct: float
    repeat_ssim: float
    repeat_beyond_ct: float
    retest: dict[str, list[dict[str, float | None]]] = field(default_factory=dict)


METRICS = {
    "stability": {"ssim": "SSIM", "spearman": "Spearman"},
    "leakage": {
        "pearson_with_ct": "with the CT, Pearson", "spearman_with_ct": "with the CT, Spearman",
        "repeat_spearman": "repeats of G, Spearman", "repeat_spearman_ct": "repeats of the CT, Spearman",
        "repeat_ssim": "repeats of G, SSIM", "repeat_beyond_ct": "beyond the CT, repeats, Pearson",
        "noise_hu": "noise, HU",
    },
}  # fmt: skip
NAMES = {"stability": ("first", "second"), "leakage": ("model",)}


def stability(crops: Iterable[Crop], generators: dict[str, Predict]) -> list[StabilityRow]:
    """Compare the maps of each pair of generators on each nodule.

    Args:
        crops: The nodules.
        generators: Two or more: name to the function that gives the nodule image of a cube.
    """
    rows = []
    for crop in _with_reference(crops):
        signals = {name: predict(crop.hu) for name, predict in generators.items()}
        mask = crop.reference
        for first, second in combinations(generators, 2):
            a, b = signals[first], signals[second]
            likeness = map_metrics.similarity(a, b, mask), map_metrics.rank_correlation(a[mask], b[mask])
            rows.append(StabilityRow(*_identity(crop), first, second, *likeness))
    return rows


def leakage(crops: Iterable[Crop], generators: dict[str, tuple[Predict, list]], seed: int = 0) -> list[LeakageRow]:
    """Compare the map of each generator with the CT and with its repeat, on each nodule.

    Args:
        crops: The nodules.
        generators: Name to the function that gives the nodule image of a cube, and its window in HU.
        seed: Of the noise; each nodule gets the same noise for all generators.
    """
    rows = []
    for number, crop in enumerate(_with_reference(crops)):
        noise = map_metrics.estimate_noise(crop.hu, crop.valid)
        rng = np.random.default_rng([seed, number])
        repeats = [map_metrics.repeat(crop.hu, noise, rng) for _ in range(2)] if noise else []
        level = noise.sd_hu if noise else float("nan")
        for name, (predict, window_hu) in generators.items():
            signal, ct = predict(crop.hu)[crop.reference], normalize(crop.hu, window_hu)[crop.reference]
            with_ct = map_metrics.correlation(signal, ct), map_metrics.rank_correlation(signal, ct)
            repeated, retest = (float("nan"),) * 4, {}
            if repeats:
                signals, windowed = [predict(hu) for hu in repeats], [normalize(hu, window_hu) for hu in repeats]
                inside, cts = ([one[crop.reference] for one in images] for images in (signals, windowed))
                retest = {
                    image: [statistics(one, crop.reference, evaluate_crops.SPACING_MM) for one in images]
                    for image, images in zip(IMAGES, (signals, windowed), strict=True)
                }
                repeated = (
                    map_metrics.rank_correlation(*inside),
                    map_metrics.rank_correlation(*cts),
                    map_metrics.similarity(*signals, crop.reference),
                    map_metrics.correlation(*map(map_metrics.beyond, inside, cts)),
                )
            rows.append(LeakageRow(*_identity(crop), name, *with_ct, level, *repeated, retest))
    return rows


def _with_reference(crops: Iterable[Crop]) -> Iterable[Crop]:
    return (crop for crop in crops if np.count_nonzero(crop.reference) >= map_metrics.MIN_VOXELS)


def _identity(crop: Crop) -> tuple[str, str, str, float, int]:
    row, voxels = crop.row, int(crop.reference.sum())
    diameter = nodule_diameter_mm(row, voxels)
    return row["patient_id"], row["series_uid"], row["nodule_index"], diameter, voxels


def report(kind: str, rows: list[MapRow], sources: dict[str, str], data: str, seed: int = 0) -> dict:
    """Return means with patient-cluster bootstrap intervals, one line for each size group and each model or pair.

    Lines of "leakage" have the test-retest ICC of each statistic too.

    Args:
        kind: "stability" or "leakage".
        rows: Of `stability` or `leakage`.
        sources: Name of each generator to what identifies it.
        data: What the crops are.
        seed: Of the bootstrap and of the noise.
    """
    subjects = list(dict.fromkeys(tuple(getattr(row, name) for name in NAMES[kind]) for row in rows))
    lines = []
    for subject in subjects:
        own = [row for row in rows if tuple(getattr(row, name) for name in NAMES[kind]) == subject]
        for size in SIZES:
            part = [row for row in own if GROUPS[size](row)]
            if not part:
                continue
            patients = [row.patient for row in part]
            line = {"subject": subject, "size": size, "nodules": len(part), "patients": len(set(patients))}
            for name in METRICS[kind]:
                values = np.array([getattr(row, name) for row in part])
                line[name] = asdict(metrics.mean_interval(values, patients, seed))
            if kind == "leakage":
                twice = [row for row in part if row.retest]
                patients = [row.patient for row in twice]
                line["icc"] = {image: {} for image in IMAGES}
                for image, name in product(IMAGES, STATISTICS):
                    scores = np.array([[one[name] for one in row.retest[image]] for row in twice], float).reshape(-1, 2)
                    line["icc"][image][name] = asdict(metrics.icc_interval(scores, patients, seed))
            lines.append(line)
    return to_rounded_json(
        {
            "schema": 1,
            "kind": kind,
            "about": ABOUT[kind],
            "data": data,
            "sources": sources,
            "bootstrap": {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed},
            "lines": lines,
        }
    )


def render(result: dict) -> str:
    """Return the report as Markdown."""
    names = METRICS[result["kind"]]
    header = [*NAMES[result["kind"]], "nodules", "n", "patients", *names.values()]
    rows = [
        [*line["subject"], line["size"], line["nodules"], line["patients"],
         *(interval(line[name], 1 if name == "noise_hu" else 3) for name in names)]
        for line in result["lines"]
    ]  # fmt: skip
    sources = "".join(f"- {name}: {text}\n" for name, text in result["sources"].items())
    title = {"stability": "Stability of the heterogeneity map", "leakage": "Is the heterogeneity map the CT?"}
    note = INTERVAL_NOTE.format(**result["bootstrap"])
    blocks = [f"# {title[result['kind']]}", result["about"], markdown_table(header, rows).strip()]
    retested = [line for line in result["lines"] if "icc" in line]  # studies of before have none
    if retested:
        header = ["model", "nodules", "n", "patients", "of", *(f"`signal_{name}`" for name in STATISTICS)]
        rows = [
            [
                *line["subject"],
                line["size"],
                line["nodules"],
                line["patients"],
                f"the {image}",
                *map(interval, own.values()),
            ]
            for line in retested
            for image, own in line["icc"].items()
        ]
        blocks += [RETEST_NOTE, markdown_table(header, rows).strip()]
    return "\n\n".join([*blocks, note, f"- Data: {result['data']}\n{sources}"])


def write(result: dict, rows: list[MapRow], out: Path, overwrite: bool = False) -> None:
    """Write `maps.csv`, `maps.json` and `maps.md` into a folder.

    Args:
        result: Of `report`.
        rows: Of `stability` or `leakage`.
        out: Folder to write.
        overwrite: Replace an earlier study there.

    Raises:
        InputError: The folder holds something that must not be replaced.
    """
    with atomic_folder(out, overwrite, output_files.MAPS) as folder:
        columns, cells = [each.name for each in fields(rows[0]) if each.name != "retest"], [asdict(row) for row in rows]
        if result["kind"] == "leakage":
            columns += [f"{one.lower()}_{name}_{time}" for one, name, time in product(IMAGES, STATISTICS, (1, 2))]
            for cell in cells:
                for image, repeats in cell["retest"].items():
                    for time, own in enumerate(repeats, 1):
                        cell |= {f"{image.lower()}_{name}_{time}": value for name, value in own.items()}
        write_csv(folder / "maps.csv", cells, columns, decimals=4)
        write_json(folder / "maps.json", result)
        (folder / "maps.md").write_text(render(result), encoding="utf-8")
