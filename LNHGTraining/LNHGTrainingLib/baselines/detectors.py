"""`lnhg-train detectors`: how well detectors alone mark nodules, by slice as in the paper's supplement, and by nodule.

Crops of a fold that a detector held out; of the last checkpoint of a budget fixed beforehand they decide nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.files.text import markdown_table, read_json, write_json
from LNHGLib.image.boxes import box_around_mask
from LNHGLib.models import folder
from LNHGLib.models.detector import build_detector
from LNHGLib.segmentation.devices import choose_device
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.tiled_inference import run_detector, scanned_slices
from torch import from_numpy, nn
from torchvision.ops import box_iou
from tqdm import tqdm

from LNHGTrainingLib import output_files
from LNHGTrainingLib.data.crops import LabeledVolume
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.attachment import lung_of_cube
from LNHGTrainingLib.evaluation.markdown import INTERVAL_NOTE, in_steps, interval
from LNHGTrainingLib.evaluation.summary import to_rounded_json
from LNHGTrainingLib.training import checkpoint
from LNHGTrainingLib.training.validate import LUNG_CUBES, RATES, candidates, cube_detections

MIN_SCORE, MIN_IOU = 0.5, 0.5
"""Of a box that marks the nodule of a slice, as in the code of the paper."""
RATE_NAMES = [f"sensitivity at {rate} false a scan" for rate in RATES]
ABOUT = (
    f"By slice: a box of a score of at least {MIN_SCORE:g} is right where it has at least {MIN_IOU:g} in common with "
    "the box of the nodule in that slice (intersection over union), of several one; a slice with the nodule and no "
    "such box is missed; boxes on other lesions are left out. By nodule: boxes of slices that follow each other are a "
    f"candidate, and false ones are counted for the volume of two lungs, that of {LUNG_CUBES} cubes."
)


@dataclass(frozen=True, eq=False)
class NamedDetector:
    """A detector and what it was trained with.

    Attributes:
        name: As reports call it.
        network: Evaluated, on its device.
        window_hu: HU that become 0 and 1.
        step: Slices between two that it sees.
        steps: Of its training; None where its model does not say.
        identity: What identifies its weights.
    """

    name: str
    network: nn.Module
    window_hu: list[float]
    step: int
    steps: int | None
    identity: str


@dataclass(frozen=True)
class CropBoxes:
    """What a detector said in a crop: slices by outcome, and candidates as `cube_detections` takes them."""

    right: int
    false: int
    slices: int
    candidates: list[tuple[float, str]]


def load_detector(name: str, path: Path, fold: int, device: str = "auto") -> NamedDetector:
    """Return the averaged detector of a checkpoint, or a model's.

    Args:
        name: As reports call it.
        path: Checkpoint of `train detector` (.pt), name or folder of a model.
        fold: That it must have held out.
        device: Where to compute.

    Raises:
        InputError: It is none, or was trained on the fold.
    """
    if path.suffix == ".pt":
        state = checkpoint.load(path)
        config = state["config"]
        if "detector" not in state or "detector" not in config:
            raise InputError(f"{path} holds no detector, expected a checkpoint of `train detector`; give another.")
        spec, window, data, steps = config["detector"], config["window_hu"], config["data"], state["step"]
        network = build_detector(spec)
        network.load_state_dict(state["ema"])
        network, identity = network.to(choose_device(device)), checkpoint.identity(state, path)
    else:
        model = folder.load(str(path))
        if "detector" not in model.card:
            raise InputError(f"Model {model.name} has no detector, expected one with both branches; give another.")
        spec, window = model.card["detector"], model.card["window_hu"]
        trained = model.card.get("training", {}).get("detector", {})
        data, steps = trained.get("data", {}), trained.get("checkpoint_step")
        network = model.detector(choose_device(device))
        identity = f"SHA-256 {model.card['files'][spec['weights']]}"
    if fold not in data.get("validation_folds", ()):
        raise InputError(
            f"{path} does not say that it held out fold {fold}, expected a detector that never saw its patients; "
            "give another --fold."
        )
    return NamedDetector(name, network.eval(), window, max(1, round(spec["slice_step_mm"])), steps, identity)


def marked(detector: NamedDetector, crop: LabeledVolume) -> CropBoxes:
    """Return what a detector marks in a cube at 1 mm.

    Args:
        detector: The detector.
        crop: Holds a nodule.
    """
    lungs = lung_of_cube(crop.hu)
    boxes = run_detector(detector.network, normalize(crop.hu, detector.window_hu), lungs, step=detector.step)
    right = false = slices = 0
    for z in scanned_slices(lungs, detector.step):
        sure = boxes[(boxes[:, 0] == z) & (boxes[:, 5] >= MIN_SCORE), 1:5]
        around = box_around_mask(crop.mask[z : z + 1])
        if around is not None:
            slices += 1
            reference = np.array([[side.start for side in around[1:]] + [side.stop for side in around[1:]]], float)
            overlap = box_iou(from_numpy(sure), from_numpy(reference)).numpy()[:, 0]
            if overlap.max(initial=0) >= MIN_IOU:
                right += 1
                sure = np.delete(sure, overlap.argmax(), axis=0)
        y, x = ((sure[:, :2] + sure[:, 2:]) / 2).astype(int).clip(0, np.array(crop.hu.shape[1:]) - 1).T
        false += int(np.count_nonzero(crop.known[z, y, x]))
    return CropBoxes(right, false, slices, candidates(crop, boxes, detector.step))


def study(
    detectors: Sequence[NamedDetector], crops: Sequence[LabeledVolume], fold: int, data: str, seed: int = 0
) -> dict:
    """Return a report, JSON-ready.

    Args:
        detectors: All held the fold out.
        crops: Of the fold, with a nodule each.
        fold: Its number.
        data: How the report calls the crops.
        seed: Of the bootstrap.
    """
    rows = []
    patients = np.unique([crop.patient for crop in crops], return_inverse=True)[1]
    for detector in detectors:
        found = [marked(detector, crop) for crop in tqdm(crops, desc=detector.name, unit="nodule", disable=None)]
        counts = ([one.right for one in found], [one.false for one in found], [one.slices for one in found])
        sums = (np.bincount(patients, values).astype(int) for values in counts)
        by_slice = metrics.precision_recall_f1(*sums, seed)
        detections = cube_detections(one.candidates for one in found)

        def sensitivities(samples: np.ndarray, detections: metrics.Detections = detections) -> np.ndarray:
            curves = [metrics.froc(detections, sample[patients]) for sample in samples]
            return np.array([[metrics.sensitivity_at(curve, rate / LUNG_CUBES) for rate in RATES] for curve in curves])

        by_nodule = metrics.cluster_bootstrap(patients.max() + 1, sensitivities, seed)
        measured = by_slice | dict(zip(RATE_NAMES, by_nodule, strict=True))
        about = {"name": detector.name, "identity": detector.identity, "steps": detector.steps}
        about |= {"parameters": sum(weight.numel() for weight in detector.network.parameters())}
        rows.append(about | {name: asdict(value) for name, value in measured.items()})
    return to_rounded_json({
        "schema": 1, "kind": "detectors", "fold": fold, "data": data, "detectors": rows,
        "nodules": len(crops), "patients": int(patients.max()) + 1, "slices": sum(counts[2]),
        "bootstrap": {"unit": "patient", "samples": metrics.BOOTSTRAP_SAMPLES, "seed": seed},
    })  # fmt: skip


def render(report: dict) -> str:
    """Return a report as Markdown.

    Args:
        report: From `study`.
    """
    shown = ["precision", "recall", "f1", *RATE_NAMES]
    rows = [
        [one["name"], f"{one['parameters']:,}", "-" if one["steps"] is None else in_steps(one["steps"]),
         *(interval(one[name]) for name in shown)]
        for one in report["detectors"]
    ]  # fmt: skip
    header = ["detector", "parameters", "trained", "precision, slices", "recall, slices", "F1, slices", *RATE_NAMES]
    return (
        f"# Detectors alone\n\n{ABOUT}\n\n{markdown_table(header, rows)}\n"
        f"{report['nodules']} nodules of {report['patients']} patients of fold {report['fold']}, {report['data']}. "
        f"{INTERVAL_NOTE.format(**report['bootstrap'])}\n"
    )


def write(report: dict, out: Path, overwrite: bool = False) -> None:
    """Write `detectors.json` and `detectors.md`, or nothing.

    Args:
        report: From `study`.
        out: Folder to make.
        overwrite: Replace an earlier report there.
    """
    with atomic_folder(out, overwrite, output_files.DETECTORS) as part:
        write_json(part / "detectors.json", report)
        (part / "detectors.md").write_text(render(report), encoding="utf-8")


def read(path: Path) -> dict:
    """Return the report of a folder that `write` made.

    Args:
        path: The folder.

    Raises:
        InputError: It holds none that can be read.
    """
    try:
        report = read_json(path / output_files.DETECTORS[0])
        render(report)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{path} holds no {output_files.DETECTORS[0]} that can be read; expected a folder that "
            "lnhg-train detectors wrote."
        ) from error
    return report
