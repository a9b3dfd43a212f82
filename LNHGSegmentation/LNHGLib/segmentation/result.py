"""What a run gives: the nodules on the CT's own voxels, and the report on how they were found."""

import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from LNHGLib import __version__
from LNHGLib.image.fingerprint import voxels_sha256
from LNHGLib.image.volume import Volume
from LNHGLib.measurement import score_scale
from LNHGLib.measurement.nodule import Nodule
from LNHGLib.models.folder import BY_OPENVINO, OPENVINO, OPENVINO_BF16, Model
from LNHGLib.segmentation import native_grid
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.runtime import Where, device_name

if TYPE_CHECKING:
    from LNHGLib.segmentation.fusion import Fusion


@dataclass(eq=False)
class Result:
    """What `segment` found; arrays are zyx on the grid of `volume`, the input.

    Attributes:
        labels: uint16, value = nodule number.
        heterogeneity: float32, the generator's signal inside the nodules, 0 outside.
        nodules: best first.
        report: versions, model, device, options, seconds by stage and warnings, ready for JSON.
        patches: the generator's nodule image around each finding, also outside the nodules.
    """

    volume: Volume
    labels: np.ndarray
    heterogeneity: np.ndarray
    nodules: list[Nodule]
    report: dict[str, Any]
    patches: list[native_grid.Patch] = field(default_factory=list)


def make_report(
    volume: Volume,
    model: Model,
    where: Where,
    options: dict[str, Any],
    monitor: Monitor,
    fusion: "Fusion | None" = None,
) -> dict[str, Any]:
    """Return what a result says of the run that made it, ready for JSON.

    Args:
        volume: the input.
        model: what was run.
        where: what it ran on.
        options: what was asked for; the card's fusion options are added.
        monitor: knows the seconds by stage and the warnings.
        fusion: how both branches were joined; None where only one ran.
    """
    runtime, path = OPENVINO if where in BY_OPENVINO else "torch", volume.source.path
    if path and Path(path).exists():
        path = str(Path(path).absolute())  # to be found from any folder
    report = {
        "versions": {"lnhg": __version__, "python": platform.python_version(), runtime: version(runtime)},
        "model": {"name": model.name, "threshold": model.spec.threshold, "sha256": dict(model.card["files"])},
        "device": {
            "used": "cpu" if runtime == OPENVINO else str(where),
            "name": device_name(where),
            "runtime": runtime,
            "precision": "bfloat16" if where == OPENVINO_BF16 else "float32",
        },
        "score_scale": score_scale.PROBABILITY if model.spec.probability else score_scale.MODEL,
        "options": {**options, "fusion": dict(model.card["fusion"])},
        "input": {
            "path": path,
            "series_uid": volume.source.series_uid,
            "voxels_sha256": voxels_sha256(volume),
            "shape_zyx": list(volume.grid.shape),
            "spacing_mm_zyx": list(volume.grid.spacing_mm),
        },
        "seconds": dict(monitor.seconds),
        "warnings": [*volume.source.notes, *monitor.warnings],
    }
    if model.spec.froc is not None:
        report["model"]["froc"] = asdict(model.spec.froc)  # what to expect stays known where the model is not at hand
    if fusion is not None:
        report["fusion"] = {
            "state": fusion.state,
            "components_dropped": fusion.dropped_components,
            "highest_score": max((finding.score for finding in fusion.findings), default=None),  # kept or not
        }
    return report
