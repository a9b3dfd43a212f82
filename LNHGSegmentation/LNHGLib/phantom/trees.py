"""Arteries, veins and airways of the synthetic lungs: trees that fill a lobe and reach the pleura.

Each branch goes 30 % of the way to the middle of the points that it serves, where a plane parts them between its two
children, until each point has a branch of its own (volume filling: Tawhai et al., Annals of Biomedical Engineering 28,
2000, 793-802). Radii obey Murray's law with an exponent measured in human pulmonary arteries (Dong et al., American
Journal of Physiology - Heart and Circulatory Physiology 319, 2020, H432-H442: 2.92 with a standard deviation of 1.07).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from LNHGLib.phantom.canvas import Canvas, Field, Point

STEP_FRACTION = 0.3
MAX_TURN = 0.6
"""Least cosine between a branch and its parent."""

SHORTEST_MM = 2.5
MURRAY_EXPONENT = 2.6
SAMPLE_MM = 0.7
"""Between two points of a center line that are drawn."""

MAX_RADIUS_MM = 3.8


class Tree:
    """A binary tree of branches, thick at the root.

    Args:
        rng: Chooses how unevenly branches part their points.
        root: (3,) x, y, z in mm where it begins.
        direction: (3,) in which it begins.
        lobes: (N, 3) points that it reaches, of each part that has a first branch of its own.
        leaf_mm: Radius of the thinnest branches.
    """

    def __init__(
        self, rng: np.random.Generator, root: Point, direction: Point, lobes: Sequence[np.ndarray], leaf_mm: float
    ) -> None:
        points, parents, leaves = [root], [0], []
        directions = [direction / np.linalg.norm(direction)]
        open_ends = [(0, served) for served in lobes if len(served)]
        while open_ends:
            parent, served = open_ends.pop()
            toward = served.mean(axis=0) - points[parent]
            last = len(served) == 1 or np.linalg.norm(toward) * STEP_FRACTION < SHORTEST_MM
            step = _turned(directions[parent], toward) * (1.0 if last else STEP_FRACTION)
            points.append(points[parent] + step)
            parents.append(parent)
            directions.append(step / np.linalg.norm(step))
            new = len(points) - 1
            if last:
                leaves.append(new)
                continue
            side = _split(rng, served, directions[new])
            open_ends += [(new, served[side]), (new, served[~side])]
        self.points, self.parents, self.directions = np.array(points), np.array(parents), np.array(directions)
        powers = np.zeros(len(points))
        powers[leaves] = (leaf_mm * rng.uniform(0.8, 1.25, len(leaves))) ** MURRAY_EXPONENT
        for i in range(len(points) - 1, 0, -1):
            powers[parents[i]] += powers[i]
        self.radii = np.minimum(powers ** (1 / MURRAY_EXPONENT), MAX_RADIUS_MM)

    def center_lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return points, directions and radii along all branches, smooth from a parent to both of its children.

        Returns:
            (N, 3) x, y, z in mm, (N, 3) unit vectors, (N,) mm.
        """
        parents, ends = self.parents[1:], self.points[1:]
        starts = self.points[parents]
        length = np.linalg.norm(ends - starts, axis=1)
        counts = np.maximum(np.ceil(length / SAMPLE_MM).astype(int), 2)
        branch = np.repeat(np.arange(len(counts)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        t = ((np.arange(len(branch)) - first + 1) / counts[branch])[:, None]
        leave, arrive = self.directions[parents] * length[:, None], self.directions[1:] * length[:, None]
        a, b, leave, arrive = starts[branch], ends[branch], leave[branch], arrive[branch]
        points = (2 * t**3 - 3 * t**2 + 1) * a + (t**3 - 2 * t**2 + t) * leave + (3 * t**2 - 2 * t**3) * b
        points += (t**3 - t**2) * arrive
        along = 6 * (t**2 - t) * (a - b) + (3 * t**2 - 4 * t + 1) * leave + (3 * t**2 - 2 * t) * arrive
        begin = np.minimum(self.radii[parents], 1.6 * self.radii[1:])[branch]
        radii = begin + t[:, 0] * (0.85 * self.radii[1:][branch] - begin)
        return points, along / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-6), radii


def beside(
    lines: tuple[np.ndarray, np.ndarray, np.ndarray], toward: Point, scale: float, wall_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the center lines of airways that go along with arteries.

    Args:
        lines: Points, directions and radii of the arteries.
        toward: (3,) unit vector to the side of the arteries that they keep to.
        scale: Radius of the lumen relative to the artery's.
        wall_mm: Thickness of the wall.

    Returns:
        (N, 3) x, y, z in mm, (N,) radius of the lumen in mm.
    """
    points, directions, radii = lines
    across = toward - (directions @ toward)[:, None] * directions
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 0.3)
    lumen = scale * radii
    return points + across * (radii + lumen + wall_mm)[:, None], lumen


def tube_fraction(c: Canvas, points: np.ndarray, radii: np.ndarray) -> Field:
    """Return the fraction of each voxel that tubes along center lines take.

    Args:
        c: The image.
        points: (N, 3) x, y, z in mm, close to each other along a tube.
        radii: (N,) mm.

    Returns:
        float32 like the image.
    """
    fraction = np.zeros(c.hu.shape, np.float32)
    flat, shape = fraction.reshape(-1), np.array(c.hu.shape)
    soft = max(1.0, c.spacing_mm[1])
    thinnest = 0.6 * soft
    edges = (0.0, 1.0, 1.8, 3.0, 4.5, 20.0)
    for low, high in pairwise(edges):
        chosen = (radii >= low) & (radii < high)
        if not chosen.any():
            continue
        radius = np.maximum(radii[chosen], thinnest).astype(np.float32)
        share = np.minimum(radii[chosen] / thinnest, 1).astype(np.float32) ** 2
        where = (points[chosen][:, ::-1] - c.corner_mm) / c.spacing_mm
        base = np.round(where).astype(int)
        rest = ((base - where) * c.spacing_mm).astype(np.float32)
        reach = np.ceil((radius.max() + soft) / c.spacing_mm).astype(int)
        steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
        steps = steps[np.linalg.norm(steps * c.spacing_mm, axis=1) < radius.max() + soft / 2 + c.spacing_mm.max() / 2]
        for step in steps:
            away = np.sqrt(((rest + (step * c.spacing_mm).astype(np.float32)) ** 2).sum(axis=1))
            value = np.clip(0.5 - (away - radius) / soft, 0, 1) * share
            index = base + step
            hit = (value > 0) & (index >= 0).all(axis=1) & (index < shape).all(axis=1)
            np.maximum.at(flat, np.ravel_multi_index(tuple(index[hit].T), c.hu.shape), value[hit])
    return fraction


def _turned(before: Point, toward: Point) -> Point:
    """Return a vector as long as `toward` that turns from the direction before no more than a branch may."""
    length = np.linalg.norm(toward)
    along = float(toward @ before) / length
    if along >= MAX_TURN:
        return toward
    across = toward / length - along * before
    across /= np.linalg.norm(across) + 1e-6
    return length * (MAX_TURN * before + np.sqrt(1 - MAX_TURN**2) * across)


def _split(rng: np.random.Generator, served: np.ndarray, direction: Point) -> np.ndarray:
    """Return which points lie on one side of a plane along the branch, across the way to the farthest point."""
    offsets = served - served.mean(axis=0)
    offsets = offsets - (offsets @ direction)[:, None] * direction
    farthest = offsets[(offsets**2).sum(axis=1).argmax()]
    count = np.clip(round(rng.uniform(0.15, 0.85) * len(served)), 1, len(served) - 1)
    side = np.zeros(len(served), bool)
    side[(offsets @ farthest).argsort(kind="stable")[:count]] = True
    return side
