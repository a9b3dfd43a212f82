"""Tools to draw a synthetic CT: an image with soft edges, shapes, noise and branching trees.

All lengths are LPS millimeters in the drawing's own frame: x to the left, y to the back, z to the head, midline x = 0.
Shapes are signed distances, negative inside, given as arrays that broadcast to (z, y, x).
"""

from collections.abc import Sequence
from math import cos, sin

import numpy as np
from scipy import ndimage

from LNHGLib.image.volume import Grid

SIZE_MM = (200.0, 244.0, 310.0)
CORNER_LPS_MM = (-155.0, -112.0, 0.0)
PLACED_AT_LPS_MM = (4.5, -21.25, -287.5)
"""Where the drawing's frame lies in the world, so that nothing can pass by taking indices for positions."""

AIR_HU = -1000
NOISE_HU = 22.0

Field = np.ndarray
Point = np.ndarray


class Canvas:
    """The image being drawn and its voxels' positions in the phantom's frame."""

    def __init__(self, seed: int, spacing_mm: tuple[float, float, float]) -> None:
        self.rng = np.random.default_rng(seed)
        self.spacing_mm = np.array(spacing_mm)
        shape = np.round(np.array(SIZE_MM) / spacing_mm).astype(int)
        self.grid = Grid.aligned(shape, spacing_mm, np.add(CORNER_LPS_MM, PLACED_AT_LPS_MM))
        axes = zip(CORNER_LPS_MM[::-1], spacing_mm, shape, strict=True)
        self.lines = [start + step * np.arange(size, dtype=np.float32) for start, step, size in axes]
        self.z, self.y, self.x = np.meshgrid(*self.lines, indexing="ij", sparse=True)
        self.hu = np.full(shape, AIR_HU, np.float32)
        self.coarse, self.fine = self.smooth_noise(8.0), self.smooth_noise(2.5)

    def paint(self, distance: Field, hu: float | Field, box: tuple[slice, ...] = (), soft_mm: float = 1.4) -> None:
        """Draw where the signed distance in mm is negative, with partial volume over `soft_mm` at the edge."""
        part = self.hu[box]
        distance = np.broadcast_to(distance, part.shape)
        near = distance < soft_mm / 2
        before = part[near]
        share = np.minimum(0.5 - distance[near] / soft_mm, 1)
        part[near] = before + share * ((hu if np.isscalar(hu) else np.broadcast_to(hu, part.shape)[near]) - before)

    def box(self, low: Point, high: Point) -> tuple[slice, slice, slice]:
        """The voxels between two points xyz."""
        spans = zip(self.lines, low[::-1], high[::-1], strict=True)
        return tuple(slice(*np.searchsorted(line, (start, stop))) for line, start, stop in spans)

    def offsets(self, box: tuple[slice, ...], center: Point) -> tuple[Field, Field, Field]:
        """x, y, z of the voxels of a box relative to a point."""
        return self.x[..., box[2]] - center[0], self.y[:, box[1]] - center[1], self.z[box[0]] - center[2]

    def tube(self, start: Point, end: Point, first_mm: float, last_mm: float, hu: float) -> None:
        """Draw a straight tube with round ends whose radius changes linearly."""
        margin = max(first_mm, last_mm) + 2
        box = self.box(np.minimum(start, end) - margin, np.maximum(start, end) + margin)
        x, y, z = self.offsets(box, start)
        along = end - start
        share = np.clip((x * along[0] + y * along[1] + z * along[2]) / (along @ along), 0, 1)
        distance = np.sqrt((x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 + (z - share * along[2]) ** 2)
        self.paint(distance - (first_mm + share * (last_mm - first_mm)), hu, box)

    def value(self, field: Field, point: Point, outside: float = np.inf) -> float:
        """The value of a field of the image's shape at the voxel nearest to a point xyz."""
        index = np.round((point - CORNER_LPS_MM)[::-1] / self.spacing_mm).astype(int)
        inside = (index >= 0).all() and (index < field.shape).all()
        return float(field[tuple(index)]) if inside else outside

    def smooth_noise(self, scale_mm: float) -> Field:
        """Noise of unit standard deviation, correlated over about `scale_mm`."""
        steps = np.maximum(np.round(scale_mm / self.spacing_mm).astype(int), 1)
        noise = self.rng.standard_normal(np.array(self.hu.shape) // steps + 3, dtype=np.float32)
        for axis in (2, 1, 0):
            index, rest = np.divmod(np.arange(self.hu.shape[axis]), steps[axis])
            share = (rest / steps[axis]).astype(np.float32).reshape(np.roll([-1, 1, 1], axis))
            low, high = noise.take(index, axis), noise.take(index + 1, axis)
            noise = low + share * (high - low)
        return noise * np.float32(1.5**1.5)

    def add_noise(self) -> None:
        """Add a scanner's noise: correlated in the slice, with the air clipped as scanners do."""
        noise = self.rng.standard_normal(self.hu.shape, dtype=np.float32)
        for axis in (1, 2):
            noise = ndimage.gaussian_filter1d(noise, 0.7 / self.spacing_mm[axis], axis)
        self.hu += noise * np.float32(NOISE_HU / noise.std())
        np.clip(self.hu, -1024, 3071, out=self.hu)


class Tree:
    """A branching tree that reaches a set of points: short paths, thick trunks (Murray's law)."""

    def __init__(self, rng: np.random.Generator, root: Point, targets: np.ndarray, leaf_mm: float) -> None:
        order = np.linalg.norm(targets - root, axis=1).argsort()
        self.points = np.concatenate([root[None], targets[order]])
        self.parents = np.zeros(len(self.points), int)
        path = np.zeros(len(self.points))
        for i in range(1, len(self.points)):
            reach = np.linalg.norm(self.points[:i] - self.points[i], axis=1)
            self.parents[i] = (reach + 0.4 * path[:i]).argmin()
            path[i] = path[self.parents[i]] + reach[self.parents[i]]
        cubes = np.zeros(len(self.points))
        for i in range(len(self.points) - 1, -1, -1):
            cubes[i] = max(cubes[i], leaf_mm**2.7)
            cubes[self.parents[i]] += cubes[i] if i else 0
        self.radii = np.minimum(cubes ** (1 / 2.7), 6.5)
        starts = self.points[self.parents]
        bow = rng.normal(0, 0.07, self.points.shape) * np.linalg.norm(self.points - starts, axis=1, keepdims=True)
        self.bends = (starts + self.points) / 2 + bow

    def draw(self, c: Canvas, grow_mm: float, hu: float) -> None:
        """Draw every branch as a tapering tube, `grow_mm` thicker than it is."""
        for i in range(1, len(self.points)):
            last = self.radii[i] + grow_mm
            first = min(self.radii[self.parents[i]], 1.4 * self.radii[i]) + grow_mm
            middle = (first + last) / 2
            c.tube(self.points[self.parents[i]], self.bends[i], first, middle, hu)
            c.tube(self.bends[i], self.points[i], middle, last, hu)


def oval(x: Field, y: Field, a: float, b: float, power: float) -> Field:
    """Distance from the middle to the edge of a rounded rectangle, in the direction of x, y."""
    x, y = np.abs(x) + 1e-3, np.abs(y) + 1e-3
    return np.hypot(x, y) / ((x / a) ** power + (y / b) ** power) ** (1 / power)


def oval_distance(x: Field, y: Field, a: float, b: float) -> Field:
    """An ellipse in the axial plane."""
    return np.hypot(x, y) - oval(x, y, a, b, 2.0)


def ellipsoid(c: Canvas, center: Sequence[float], radii: Sequence[float], tilt: float = 0.0) -> Field:
    """An ellipsoid, turned in the axial plane by `tilt` radians."""
    x, y, z = c.x - center[0], c.y - center[1], c.z - center[2]
    x, y = x * cos(tilt) - y * sin(tilt), x * sin(tilt) + y * cos(tilt)
    return (np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2) - 1) * min(radii)
