"""A synthetic chest CT with nodules of known place, size and kind, drawn by the project's own code.

It serves the demo and the tests. It is no measurement: metrics on it say nothing about real scans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from LNHGLib.image.boxes import Box
from LNHGLib.image.volume import Source, Volume
from LNHGLib.phantom.anatomy import Chest, draw_lungs, draw_organs, draw_wall
from LNHGLib.phantom.canvas import PLACED_AT_LPS_MM, Canvas, Field, Point
from LNHGLib.phantom.trees import Tree

KINDS_HU = {"solid": 35, "part-solid": -560, "ground-glass": -620, "juxta-pleural": 35, "juxta-vascular": 35}
NEIGHBOR_FRACTION = {"juxta-pleural": 0.14, "juxta-vascular": 0.1}
"""Fraction of the cube around the nodule that the chest wall or the vessel takes."""

CLEAR_MM = 3.0
"""Around other nodules there is nothing but lung for so far."""

CORE_HU = 25
CORE_FRACTION = 0.55
NODULES = (
    ("solid", 9.0),
    ("solid", 5.0),
    ("part-solid", 18.0),
    ("ground-glass", 12.0),
    ("juxta-pleural", 11.0),
    ("juxta-vascular", 8.0),
    ("solid", 20.0),
)


class PhantomNodule(TypedDict):
    """What is true of one nodule: label, kind, center in the world, diameter of the ball of its volume, HU inside."""

    label: int
    kind: str
    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic CT.

    Attributes:
        volume: int16 HU.
        labels: uint8 like the volume, value = label of the nodule.
        nodules: The truth, in order of the labels.
    """

    volume: Volume
    labels: np.ndarray
    nodules: list[PhantomNodule]


def make_phantom(
    seed: int = 0,
    spacing_mm: tuple[float, float, float] = (2.0, 1.0, 1.0),
    nodules: Sequence[tuple[str, float]] = NODULES,
) -> Phantom:
    """Draw a chest CT.

    Args:
        seed: The same seed, spacing and nodules give the same voxels.
        spacing_mm: zyx.
        nodules: Kind (a key of `KINDS_HU`) and diameter in mm of each; empty for a healthy chest.

    Returns:
        CT, label map and truth.
    """
    canvas = Canvas(seed, spacing_mm)
    chest = Chest(canvas)
    draw_wall(canvas, chest)
    draw_organs(canvas, chest)
    arteries = draw_lungs(canvas, chest)
    labels = np.zeros(canvas.hu.shape, np.uint8)
    truth: list[PhantomNodule] = []
    occupied: list[tuple[Point, float]] = []
    for label, (kind, diameter) in enumerate(nodules, start=1):
        center = _choose_center(canvas, chest, arteries, kind, diameter / 2, occupied)
        occupied.append((center, diameter / 2))
        box, distance = _nodule_shape(canvas, center, diameter / 2)
        hu = KINDS_HU[kind]
        canvas.paint(distance, hu + 8 * np.sin(0.9 * distance), box, soft_mm=1.8)
        if kind == "part-solid":
            core_box, core = _nodule_shape(canvas, center, CORE_FRACTION * diameter / 2)
            canvas.paint(core, CORE_HU, core_box, soft_mm=2.0)
        labels[box][(distance < 0) & (chest.cavity[box] < 0)] = label
        lps = tuple(float(v) for v in center + PLACED_AT_LPS_MM)
        truth.append(PhantomNodule(label=label, kind=kind, center_lps_mm=lps, diameter_mm=diameter, hu=float(hu)))
    canvas.blur()
    canvas.add_noise()
    return Phantom(Volume(canvas.hu.astype(np.int16), canvas.grid, Source("synthetic chest CT")), labels, truth)


def _nodule_shape(c: Canvas, center: Point, radius: float) -> tuple[Box, Field]:
    """Return the box around a slightly lobulated ball and its signed distance in mm there."""
    box = c.box(center - 1.3 * radius - 3, center + 1.3 * radius + 3)
    x, y, z = c.offsets(box, center)
    r = np.sqrt(x * x + y * y + z * z) + 1e-3
    waves, phases = c.rng.normal(0, 1.6, (4, 3)), c.rng.uniform(0, 6.3, 4)
    bumps = sum(np.sin((w[0] * x + w[1] * y + w[2] * z) / r * 1.7 + p) for w, p in zip(waves, phases, strict=True))
    bumps = (bumps - bumps.mean()) * 0.045
    return box, r - radius * (1 + bumps)


def _choose_center(
    c: Canvas, chest: Chest, arteries: list[Tree], kind: str, radius: float, occupied: list[tuple[Point, float]]
) -> Point:
    """Choose the center that fits the kind and has the least soft tissue beyond it, among many random ones."""
    best, least = None, np.inf
    for _ in range(400):
        point = _random_center(c, chest, arteries, kind, radius)
        if point is None or any(np.linalg.norm(point - p) < radius + r + 12 for p, r in occupied):
            continue
        reach = radius if kind in NEIGHBOR_FRACTION else radius + CLEAR_MM
        part = c.hu[c.box(point - reach, point + reach)]
        surplus = abs(float((part > -600).mean()) - NEIGHBOR_FRACTION.get(kind, 0.0))
        if surplus < least:
            best, least = point, surplus
        if least < 0.01:
            break
    if best is None:
        raise ValueError(f"No room for a {kind} nodule of {2 * radius:g} mm in the phantom; ask for fewer or smaller.")
    return best


def _random_center(c: Canvas, chest: Chest, arteries: list[Tree], kind: str, radius: float) -> Point | None:
    """Return a random center for a nodule, None where the kind does not fit."""
    if kind == "juxta-vascular":
        tree = arteries[c.rng.integers(len(arteries))]
        node = c.rng.choice(np.flatnonzero((tree.radii > 1.1) & (tree.radii < 2.6)))
        away = c.rng.normal(size=3)
        point = tree.points[node] + away / np.linalg.norm(away) * (0.8 * radius + tree.radii[node])
        return point if chest.depth(c, point) > radius + 5 else None
    point = c.rng.uniform((-122, -78, 70), (122, 74, 205))
    if chest.depth(c, point) < radius + 4:
        return None
    if kind == "juxta-pleural":
        outward = np.array([point[0], point[1] + 4, 0.0]) / np.hypot(point[0], point[1] + 4)
        near = point + outward * (-float(c.values(chest.cavity, point)) - 0.7 * radius)
        return near if abs(chest.depth(c, near) - 0.7 * radius) < 1 and abs(near[0]) > 70 else None
    return point
