"""A tiny chest, a tiny model folder and a stand-in detector: what the tests of the pipeline and the CLI run on.

The generator's weights are set by hand so that it lets signal above a gate through; the detector either has random
weights (in the folder) or finds bright blobs (`with_stand_ins`).
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from LNHGLib.image.volume import Grid, Source, Volume
from LNHGLib.models import folder as models
from LNHGLib.models import gan
from LNHGLib.models.classifier import build_classifier
from LNHGLib.models.detector import build_detector
from LNHGLib.models.registry import build_generator
from safetensors.torch import save_file
from scipy import ndimage
from torch import nn

GATE = 0.35
"""Normalised signal that the generator removes: -510 HU in the default window."""

NODULES = (((-10.0, -38.0, 70.0), 8.0), ((0.0, 40.0, 105.0), 10.0), ((14.0, 36.0, 55.0), 7.0))
"""Center (y, x, z) in mm from the middle of the tiny chest's lowest slice, and radius in mm."""

PLACED_AT_LPS_MM = (12.0, -170.0, 930.0)


def tiny_chest(nodules=NODULES, spacing_mm=(4.0, 3.0, 3.0)) -> Volume:
    """A body with two lungs and solid spheres in them, z running to the head."""
    shape = [round(length / s) for length, s in zip((160, 200, 264), spacing_mm, strict=True)]
    grid = Grid.aligned(shape, spacing_mm, PLACED_AT_LPS_MM)
    z, y, x = (np.arange(n) * s for n, s in zip(shape, spacing_mm, strict=True))
    z, y, x = z[:, None, None], (y - y.mean())[None, :, None], (x - x.mean())[None, None, :]
    hu = np.full(shape, -1000.0)
    hu[np.broadcast_to((y / 82) ** 2 + (x / 118) ** 2 < 1, shape)] = 40
    for side in (-1, 1):
        hu[(y / 62) ** 2 + ((x - side * 52) / 42) ** 2 + ((z - 80) / 66) ** 2 < 1] = -850
    for (cy, cx, cz), radius in nodules:
        distance = np.sqrt((y - cy) ** 2 + (x - cx) ** 2 + (z - cz) ** 2) - radius
        inside = np.clip(0.5 - distance / 3, 0, 1)
        hu += inside * (40 - hu)
    hu += np.random.default_rng(0).normal(0, 8, shape)
    return Volume(hu.astype(np.int16), grid, Source("tiny chest"))


def centers_lps_mm(volume: Volume, nodules=NODULES) -> np.ndarray:
    """World positions (n, 3) of the spheres of `tiny_chest`."""
    middle = volume.grid.index_to_lps([0, (volume.grid.shape[1] - 1) / 2, (volume.grid.shape[2] - 1) / 2])
    return np.array([[cx, cy, cz] for (cy, cx, cz), _ in nodules]) + middle


def gate_generator(gate: float = GATE) -> gan.PaperGenerator:
    """A generator of the paper's form that gives max(O - gate, 0)."""
    generator = gan.PaperGenerator(width=1)
    for parameter in generator.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(generator.last.bias, -gate)
    return generator.eval()


class BlobDetector(nn.Module):
    """Gives a box around every bright blob of the middle channel that touches no border."""

    def __init__(self, most_px: int = 16) -> None:
        super().__init__()
        self.most_px = most_px
        self.place = nn.Parameter(torch.zeros(()))  # tells the device, as a real network's weights do

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [self._find(image[1].cpu().numpy()) for image in images]

    def _find(self, image: np.ndarray) -> dict[str, torch.Tensor]:
        boxes = []
        for rows, columns in ndimage.find_objects(ndimage.label(image > 0.5)[0]):
            inner = rows.start > 0 and columns.start > 0 and rows.stop < len(image) and columns.stop < image.shape[1]
            if inner and max(rows.stop - rows.start, columns.stop - columns.start) <= self.most_px:
                boxes.append([columns.start, rows.start, columns.stop, rows.stop])
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "scores": torch.full((len(boxes),), 0.9),
        }


class _WithStandIns(models.Model):
    def generator(self, device="cpu") -> nn.Module:
        return self.card["stand-ins"][0] or super().generator(device)

    def detector(self, device="cpu") -> nn.Module:
        return self.card["stand-ins"][1]


def with_stand_ins(
    model: models.Model, detector: nn.Module | None = None, generator: nn.Module | None = None
) -> models.Model:
    """The same model with the blob finder, or the network given, for its detector, and maybe another generator."""
    return _WithStandIns(model.folder, {**model.card, "stand-ins": (generator, detector or BlobDetector())})


def write_model(
    folder: Path, second: bool = False, classifier: bool = False, detector: bool = True, **changes
) -> models.Model:
    """Write a tiny model folder; `changes` replace parts of its card.

    It may have a second generator, which is blind, and a classifier with random weights, and may lack a detector.
    """
    folder.mkdir(parents=True)
    detector_spec = {
        "backbone": "light",
        "width": 4,
        "slice_step_mm": 4.0,
        "min_score": 0.3,
        "weights": "detector.safetensors",
    }
    torch.manual_seed(0)
    save_file(gate_generator().state_dict(), folder / "generator.safetensors")
    save_file(build_detector(detector_spec).state_dict(), folder / "detector.safetensors")
    if second:
        spec = {"kind": "paper", "width": 1, "input_skip": False}
        nothing = {name: torch.zeros_like(values) for name, values in build_generator(spec).state_dict().items()}
        save_file(nothing, folder / "second_generator.safetensors")
        changes = {"second_generator": {**spec, "weights": "second_generator.safetensors"}, **changes}
    if classifier:
        spec = {"kind": "residual", "width": 2}
        save_file(build_classifier(spec).state_dict(), folder / "classifier.safetensors")
        changes = {"classifier": {**spec, "weights": "classifier.safetensors"}, **changes}
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
    card = {
        "schema": 1,
        "name": "tiny",
        "description": "An intensity gate, for tests.",
        "licence": "Apache-2.0",
        "grid": {"kind": "spacing", "spacing_mm": [3.0, 3.0, 3.0]},
        "window_hu": [-1000.0, 400.0],
        "generator": {"kind": "paper", "width": 1, "weights": "generator.safetensors", "threshold": 0.1},
        "detector": detector_spec,
        "fusion": {"overlap": "touch", "margin_mm": 3.5, "weight": 0.5, "floor": 0.1},
        "threshold": 0.3,
        "files": files,
    }
    if not detector:
        (folder / card.pop("detector")["weights"]).unlink()
        del files["detector.safetensors"]
        card["fusion"]["weight"] = 0.0
    (folder / "model.json").write_text(json.dumps({**card, **changes}))
    return models.read(folder)
