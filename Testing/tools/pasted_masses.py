"""Paste masses into the lungs of real scans and see whether a model outlines each whole.

    python Testing/tools/pasted_masses.py [--model lnhg-1mm] [--out Resources/Studies/masses.json] SCAN...

Each scan is segmented three times. Each time it has two masses of one size: one at the wall of a lung, one at the
mediastinum in the other lung. A mass is a ball with smooth bumps, of soft tissue with noise; what lies of it outside of
the lungs is not pasted, so that it grows to what it touches.
"""

import argparse
from pathlib import Path

import numpy as np
from LNHGLib.files.text import markdown_table, write_json
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Volume, canonical
from LNHGLib.models import folder as models
from LNHGLib.segmentation import pipeline
from LNHGLib.segmentation.preprocessing import find_lungs
from scipy import ndimage

DIAMETERS_MM = (25.0, 40.0, 60.0)
PLACES = ("wall", "mediastinum")
HU, NOISE_HU = 30.0, 20.0
BUMPS = 0.12
"""Standard deviation of the radius, as a part of it."""
BEYOND_PLEURA_MM = 3.0
"""The lungs that are searched reach so far beyond the pleura."""
PIECE = 0.02
"""A finding that holds a smaller part of a mass is no piece of it."""


def paste(volume: Volume, diameter_mm: float, seed: int) -> dict[str, np.ndarray]:
    """Paste two masses into a CT, in place; return where each lies, bool (z, y, x), by the place that it touches.

    Args:
        volume: CT in HU, canonical.
        diameter_mm: of both.
        seed: of place, shape and noise.
    """
    rng, spacing = np.random.default_rng(seed), volume.grid.spacing_mm
    depth, nearest = ndimage.distance_transform_edt(find_lungs(volume), sampling=spacing, return_indices=True)
    inner = depth > BEYOND_PLEURA_MM
    middle = np.argwhere(inner).mean(0)[2]
    left = np.arange(volume.grid.shape[2]) > middle
    masses = {}
    for place, side in zip(PLACES, rng.permutation([True, False]), strict=True):
        from_middle = np.abs(np.arange(volume.grid.shape[2]) - middle)
        medial = np.abs(nearest[2] - middle) < from_middle - 0.8 * depth / spacing[2]
        lateral = np.abs(nearest[2] - middle) > from_middle + 0.8 * depth / spacing[2]
        there = (lateral if place == "wall" else medial) & (left == side)
        there &= np.abs(depth - BEYOND_PLEURA_MM - 0.35 * diameter_mm) < 2
        center = np.argwhere(there)[rng.integers(there.sum())]
        mass = bumpy_ball(volume.grid.shape, center, spacing, diameter_mm, rng) & inner
        tissue = HU + NOISE_HU * ndimage.gaussian_filter(rng.normal(size=mass.shape), 0.6) / 0.3
        soft = ndimage.gaussian_filter(mass.astype(np.float32), 0.7 / np.array(spacing))
        volume.array[...] = np.rint(volume.array + soft * (tissue - volume.array))
        masses[place] = mass
    return masses


def bumpy_ball(
    shape: tuple[int, ...],
    center: np.ndarray,
    spacing_mm: tuple[float, ...],
    diameter_mm: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a ball whose radius rises and falls smoothly over its surface, bool (z, y, x).

    Args:
        shape: of the array.
        center: index (z, y, x).
        spacing_mm: of the voxels (z, y, x).
        diameter_mm: on average.
        rng: draws the bumps.
    """
    offset = [(np.arange(size) - c) * mm for size, c, mm in zip(shape, center, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*offset, indexing="ij", sparse=True)
    distance = np.sqrt(z**2 + y**2 + x**2)
    waves = rng.normal(0, 2 * np.pi / diameter_mm, (8, 3))
    phases = rng.uniform(0, 2 * np.pi, 8)
    bumps = sum(np.cos(a * z + b * y + c * x + p) for (a, b, c), p in zip(waves, phases, strict=True)) / 2
    return distance < diameter_mm / 2 * (1 + BUMPS * bumps)


def measure(scan: Path, model: models.Model) -> list[dict]:
    """Return a line for each mass: its Dice, its number of pieces, and the score of the finding on it.

    Args:
        scan: a CT.
        model: segments it.
    """
    lines = []
    for number, diameter_mm in enumerate(DIAMETERS_MM):
        volume = canonical(read_volume(scan))
        volume = Volume(volume.array.copy(), volume.grid, volume.source)
        masses = paste(volume, diameter_mm, number)
        result = pipeline.segment(volume, model)
        for place, mass in masses.items():
            counts = np.bincount(result.labels[mass], minlength=len(result.nodules) + 1)
            sizes = np.bincount(result.labels.ravel(), minlength=len(counts))
            dices = 2 * counts[1:] / (sizes[1:] + mass.sum())
            best = int(dices.argmax()) if len(dices) else None
            found = best is not None and dices[best] > 0
            lines.append({
                "scan": scan.parent.name if scan.is_file() else scan.name.removesuffix("dicom") or scan.parent.name,
                "place": place, "diameter_mm": diameter_mm, "dice": float(dices[best]) if found else 0.0,
                "pieces": int((counts[1:] > PIECE * mass.sum()).sum()),
                "score": float(result.nodules[best].score) if found else None,
            })  # fmt: skip
            print(lines[-1], flush=True)
    return lines


def render(study: dict) -> str:
    """Return the study as Markdown."""
    rows = [
        [line["scan"], line["place"], f"{line['diameter_mm']:g}", f"{line['dice']:.2f}", line["pieces"],
         "-" if line["score"] is None else f"{line['score']:.2f}"]
        for line in study["lines"]
    ]  # fmt: skip
    header = ["scan", "grown to", "diameter, mm", "Dice", "pieces", "score"]
    return markdown_table(header, rows)


def main() -> None:
    """Measure the scans of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=models.DEFAULT)
    parser.add_argument("--out", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    options = parser.parse_args()
    model = models.load(options.model)
    lines = [line for scan in options.scans for line in measure(scan, model)]
    study = {"schema": 1, "kind": "masses", "model": model.name, "threshold": model.spec.threshold, "lines": lines}
    if options.out:
        write_json(options.out, study)
    print(render(study))


if __name__ == "__main__":
    main()
