"""`lnhg-train crossvalidate MODEL...`: how well nodules are found by a model's parts, on what the model held out.

Every model is a fold: its generator held the fold's patients out. One search of each scan and crop by the stages of the
pipeline gives every finding the scores of all parts; the systems that are compared differ in the scores that count.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_file, atomic_folder
from LNHGLib.files.text import markdown_table, read_json, write_csv, write_json
from LNHGLib.models.folder import Model
from LNHGLib.segmentation.runtime import Where, choose_runtime
from tqdm import tqdm

from LNHGTrainingLib import output_files
from LNHGTrainingLib.data.crops import load_crops, nodule_diameter_mm
from LNHGTrainingLib.data.scans import read_scans
from LNHGTrainingLib.evaluation import metrics, plots
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, interval
from LNHGTrainingLib.evaluation.matching import MIN_READERS
from LNHGTrainingLib.evaluation.summary import GROUPS, to_rounded_json
from LNHGTrainingLib.release import probability, scan_findings
from LNHGTrainingLib.release.export import MEASURED
from LNHGTrainingLib.release.scan_findings import ScoredFinding

SEGMENTER, BOTH = "segmenter alone (L-RF)", "both branches"
CLASSIFIED, WITHOUT_DETECTOR = "with classifier", "classifier without detector"
SYSTEMS = {
    SEGMENTER: ("segmenter",),
    BOTH: ("segmenter", "detector"),
    CLASSIFIED: ("segmenter", "detector", "classifier"),
    WITHOUT_DETECTOR: ("segmenter", "classifier"),
}
"""What finds nodules, and whose scores sort the findings; a model without a part leaves out what needs it."""
COUNTERPARTS = {BOTH: SEGMENTER, CLASSIFIED: WITHOUT_DETECTOR}
"""Systems with a detector, and the same without it."""
SIZES_AND_TYPES = [name for name in GROUPS if "mm" in name or "texture" in name]
NETWORKS = ("generator", "second_generator", "detector", "classifier")
RATE = 1.0
"""False findings per scan at which the sensitivity is given by size and type."""
COLUMNS = ("fold", "scan", "patient", "z", "y", "x", "outcome", "diameter_mm", *probability.PARTS)

ABOUT = (
    "Each model searches what its generator held out: the whole scans of its fold, and the crops of its other "
    f"patients. Nodules are those of {MIN_READERS} or more readers, in scans and crops. What is found falsely is "
    "counted in whole scans alone, since crops show little but a nodule; false findings per scan are of these scans. A "
    "finding with its centroid in the readers' consensus is a hit, of which the best counts; what else touches an "
    f"outline is left out, as is what is larger than {scan_findings.LARGEST_OUTLINED_MM:g} mm and touches none. Each "
    "system sorts the same findings by a logistic regression over the scores of its parts; its few factors are fitted "
    "on all of them, with as many nodules as the scans hold. CPM is the mean of the sensitivities. Types are of the "
    "nodules that readers rated, those of crops."
)


ONE_SCAN = ", so that intervals do not tell how false findings differ between scans: there is one"


class SearchedData(NamedTuple):
    """What is searched.

    Attributes:
        crops: HDF5 file laid out like `luna16_crops.h5`.
        table: CSV laid out like `luna16_crops.csv`.
        scans: HDF5 file laid out like `lidc_scans.h5`.
        limit: About how many crops of each fold are searched; None takes all.
        cache: Folder that keeps what was found, so that a search that was broken off goes on; None keeps nothing.
    """

    crops: Path
    table: Path
    scans: Path
    limit: int | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Nodule:
    """A nodule of enough readers: its number in its scan, and what `GROUPS` ask for."""

    number: int
    diameter_mm: float
    texture: float


@dataclass(frozen=True, eq=False)
class Place:
    """A whole scan or a crop, its nodules, and what a model found there."""

    name: str
    patient: str
    fold: int
    whole: bool
    nodules: list[Nodule]
    rows: list[ScoredFinding]


def held_out(models: Sequence[Model]) -> list[list[int]]:
    """Return the folds that each model's generator held out.

    Args:
        models: Of the folds.

    Raises:
        InputError: A card does not say, the models have different parts, or two hold out the same fold.
    """
    folds = []
    for model in models:
        recipe = model.card.get("training", {}).get("generator", {}).get("data", {})
        parts, expected = (" and ".join(p for p in NETWORKS if p in each.card) for each in (model, models[0]))
        if parts != expected:
            raise InputError(
                f"{model.folder} has {parts}, expected {expected} as of {models[0].name}; give the same parts."
            )
        if not recipe.get("validation_folds"):
            raise InputError(
                f"{model.folder} names no fold that its generator held out, expected one; train it with --fold."
            )
        folds.append(list(recipe["validation_folds"]))
    numbers = [number for own in folds for number in own]
    for number in numbers:
        if numbers.count(number) > 1:
            raise InputError(f"Fold {number} is held out by two models, expected one; give one of each fold.")
    return folds


def search(models: Sequence[Model], data: SearchedData, device: "str | Where") -> list[Place]:
    """Search the scans and crops that each model held out; a patient with a whole scan has it in place of his crops.

    Args:
        models: Of the folds.
        data: Scans and crops.
        device: Where to compute, as for `pipeline.segment`.

    Raises:
        InputError: As `held_out`, or there is no whole scan.
    """
    places = []
    for model, folds in zip(models, held_out(models), strict=True):
        whole = scan_findings.without_probability(model)
        places += _search_fold(whole, folds, data, choose_runtime(device, whole))
    if not any(place.whole for place in places):
        raise InputError(f"{data.scans} holds no scan of the models' folds, expected one or more; give other models.")
    return places


def _search_fold(model: Model, folds: list[int], data: SearchedData, where: "Where") -> Iterator[Place]:
    patients = set()
    for scan in tqdm(read_scans(data.scans, data.table, folds), unit="scan", disable=None):
        patients.add(scan.patient)
        grid = scan_findings.grid_of(scan)
        nodules = [
            Nodule(nodule.label, nodule.diameter_mm, nodule.texture)
            for nodule in scan_findings.reference_nodules(scan, grid)
            if nodule.counts
        ]
        rows = _kept(data.cache, model, scan.name, partial(scan_findings.score_scan, scan, model, where))
        yield Place(scan.name, scan.patient, folds[0], True, nodules, rows)
    crops = load_crops(data.crops, data.table, folds, MIN_READERS)
    for crop in tqdm(crops.spread(data.limit or len(crops)), unit="crop", disable=None):
        if crop.patient in patients:
            continue
        name = f"crop {crop.row['row']}"
        search_crop = partial(scan_findings.score_crop, name, crop, model, where)
        rows = _kept(data.cache, model, name, search_crop)
        diameter_mm = nodule_diameter_mm(crop.row, np.count_nonzero(crop.mask))
        nodule = Nodule(1, diameter_mm, float(crop.row.get("att_texture") or "nan"))
        yield Place(name, crop.patient, folds[0], False, [nodule], [row for row in rows if row.touches])


def _kept(
    cache: Path | None, model: Model, name: str, search_place: Callable[[], list[ScoredFinding]]
) -> list[ScoredFinding]:
    """Return what a model finds in a scan or crop, from the cache if it is there."""
    if cache is None:
        return search_place()
    said = {key: value for key, value in model.card.items() if key not in (*MEASURED, "training", "description")}
    key = hashlib.sha256(json.dumps([said, name], sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"{name.replace(' ', '-')}-{key}.json"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        rows = search_place()
        with atomic_file(path) as part:
            write_json(part, [asdict(row) for row in rows])
    return [ScoredFinding(**row | {"center": tuple(row["center"]), "on": tuple(row["on"])}) for row in read_json(path)]


@dataclass(frozen=True, eq=False)
class Study:
    """What a search gave: the report, JSON-ready, and the FROC curve of each system."""

    report: dict
    curves: dict[str, metrics.Froc]


def study(name: str, models: Sequence[Model], places: Sequence[Place], seed: int = 0) -> Study:
    """Sort the findings by each system and measure what it finds, with intervals by patient.

    Args:
        name: Of the method.
        models: Of the folds.
        places: From `search`.
        seed: Of the bootstrap.
    """
    whole = [place.whole for place in places]
    counts = {place.name: len(place.nodules) for place in places}
    rows = [row for place in places for row in place.rows if row.touches or scan_findings.is_counted(row)]
    nodules, scans = sum(counts.values()), sum(whole)
    in_scans = sum(len(place.nodules) for place in places if place.whole)
    weight, floor = max(in_scans, 1) / nodules, models[0].spec.fusion.floor
    groups = {}  # findings with hits on nodules of a group alone, others being left out, and how many each place has
    for group in SIZES_AND_TYPES:
        members = {place.name: {one.number for one in place.nodules if GROUPS[group](one)} for place in places}
        if any(members.values()):
            own = [replace(row, on=tuple(n for n in row.on if n in members[row.scan])) for row in rows]
            groups[group] = own, {name: len(numbers) for name, numbers in members.items()}
    found, by_group = {}, {}
    for system, parts in SYSTEMS.items():
        if not {"segmenter", *models[0].card}.issuperset(parts):
            continue
        spec = probability.fit(rows, floor, weight, parts, size=False)
        scores = probability.probabilities(rows, spec, floor)
        found[system] = scan_findings.detections(rows, scores, counts, whole)
        by_group[system] = {
            group: scan_findings.detections(own, scores, members, whole) for group, (own, members) in groups.items()
        }
    patients = sorted({place.patient for place in places})
    report = {
        "schema": 1,
        "kind": "detection",
        "name": name,
        "about": ABOUT,
        "folds": [_fold(model, folds, places) for model, folds in zip(models, held_out(models), strict=True)],
        "scans": scans,
        "patients": len(patients),
        "nodules": nodules,
        "nodules_in_scans": in_scans,
        "candidates": len(rows),
        "bootstrap": {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed},
        "systems": _systems(found, by_group, places, seed),
    }
    return Study(to_rounded_json(report), {system: metrics.froc(one) for system, one in found.items()})


def _fold(model: Model, folds: list[int], places: Sequence[Place]) -> dict:
    """Return what a report says of a model: what it searched, and which networks saw crops of its patients."""
    own = [place for place in places if place.fold == folds[0]]
    return {
        "folds": folds,
        "files": model.card["files"],
        "scans": sum(place.whole for place in own),
        "nodules": sum(len(place.nodules) for place in own),
        "saw": [
            part for part in NETWORKS if part in model.card and any(probability.saw(model, part, f) for f in folds)
        ],
    }


def _systems(found: dict, by_group: dict, places: Sequence[Place], seed: int) -> dict[str, dict]:
    """Return each system's sensitivities, CPM, what its detector adds to it, and its sensitivity by size and type.

    Patients with whole scans are sampled by themselves: in a sample without any, nothing would be false.
    """
    patients, first, clusters = np.unique([one.patient for one in places], return_index=True, return_inverse=True)
    with_scan = np.array([place.whole for place in places])[first]

    def statistic(samples: np.ndarray) -> np.ndarray:
        return np.array([sampled(found, by_group, counts[clusters]) for counts in samples])

    intervals = iter(metrics.cluster_bootstrap(len(patients), statistic, seed, strata=with_scan.astype(int)))
    systems = {}
    for system, groups in by_group.items():
        rates = {f"{rate:g}": asdict(next(intervals)) for rate in metrics.CPM_RATES}
        systems[system] = {"sensitivity_at": rates, "cpm": asdict(next(intervals))}
        systems[system]["detector_adds"] = asdict(next(intervals)) if system in COUNTERPARTS else None
        systems[system]["by_group"] = {
            group: {"nodules": int(one.nodules.sum()), "sensitivity": asdict(next(intervals))}
            for group, one in groups.items()
        }
    return systems


def sampled(found: dict, by_group: dict, counts: np.ndarray) -> list[float]:
    """Return the measures of one bootstrap sample: of each system its rates, CPM, maybe what its detector adds, groups.

    Args:
        found: `Detections` of each system.
        by_group: `Detections` of each system and group.
        counts: How often each scan and crop is in the sample, int (places,).
    """
    curves = {system: metrics.froc(one, counts) for system, one in found.items()}
    cpm, values = {system: metrics.cpm(curve) for system, curve in curves.items()}, []
    for system, curve in curves.items():
        values += [metrics.sensitivity_at(curve, rate) for rate in metrics.CPM_RATES]
        values.append(cpm[system])
        if system in COUNTERPARTS:
            values.append(cpm[system] - cpm[COUNTERPARTS[system]])
        values += [metrics.sensitivity_at(metrics.froc(one, counts), RATE) for one in by_group[system].values()]
    return values


def render(report: dict) -> str:
    """Return the report as Markdown."""
    systems, first = report["systems"], next(iter(report["systems"].values()))
    rates = [*first["sensitivity_at"]]
    header = ["found by", "CPM", *(f"at {rate}" for rate in rates), "CPM that the detector adds"]
    rows = [
        [name, interval(one["cpm"]), *(interval(one["sensitivity_at"][rate]) for rate in rates),
         interval(one["detector_adds"]) if one["detector_adds"] else "-"]
        for name, one in systems.items()
    ]  # fmt: skip
    groups = [
        [group, values["nodules"], *(interval(one["by_group"][group]["sensitivity"]) for one in systems.values())]
        for group, values in first["by_group"].items()
    ]
    folds = report["folds"]
    numbers = [number for fold in folds for number in fold["folds"]]
    which = f"fold {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} folds ({', '.join(map(str, numbers))})"
    saw = {
        part: [str(n) for fold in report["folds"] if part in fold["saw"] for n in fold["folds"]] for part in NETWORKS
    }
    flattered = "".join(
        f" The {part.replace('_', ' ')} of fold{'s' if len(seen) > 1 else ''} {', '.join(seen)} was trained on crops "
        "of these patients, which flatters it."
        for part, seen in saw.items()
        if seen
    )
    said = (
        f"{report['nodules']} nodules of {report['patients']} patients, {report['nodules_in_scans']} of them in "
        f"{report['scans']} whole scan{'s' if report['scans'] > 1 else ''}; {which}.{flattered}"
    )
    return "\n".join(
        [
            f"# What finds nodules: {report['name']}\n",
            f"{said}\n",
            "Sensitivity at false findings per scan:\n",
            markdown_table(header, rows),
            f"Sensitivity by size and type, at {RATE:g} false finding per scan:\n",
            markdown_table(["nodules", "n", *systems], groups),
            f"{report['about']} {INTERVAL_NOTE.format(**report['bootstrap'])} Patients with and without a whole scan "
            f"are sampled by themselves{ONE_SCAN if report['scans'] == 1 else ''}.\n",
        ]
    )


def write(made: Study, places: Sequence[Place], out: Path, overwrite: bool = False) -> None:
    """Write findings with all parts' scores, report and FROC curves into a folder.

    Args:
        made: From `study`.
        places: What was searched.
        out: Folder to write.
        overwrite: Replace an earlier report there.

    Raises:
        InputError: The folder holds something that must not be replaced.
    """
    lines = [
        asdict(row)
        | dict(zip("zyx", row.center, strict=True))
        | {"fold": place.fold, "outcome": "nodule" if row.on else "near a nodule" if row.touches else "false"}
        for place in places
        for row in place.rows
    ]
    with atomic_folder(out, overwrite, output_files.DETECTION) as folder:
        write_csv(folder / "findings.csv", lines, COLUMNS, decimals=4)
        write_json(folder / "detection.json", made.report)
        (folder / "detection.md").write_text(render(made.report), encoding="utf-8")
        title = f"{made.report['scans']} scans, {made.report['nodules']} nodules"
        plots.froc_of_scores(made.curves, title, folder / "froc.png")
