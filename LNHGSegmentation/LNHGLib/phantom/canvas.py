"""Tools to draw a synthetic CT: an image with soft edges, shapes, noise and branching trees.

All lengths are LPS millimeters in the drawing's own frame: x to the left, y to the back, z to the head, midline x = 0.
Shapes are signed distances, negative inside, given as arrays that broadcast to (z, y, x).
"""

from collections.abc import Sequence
from math import cos, sin

import numpy as np
from scipy import ndimage

from LNHGLib.image.boxes import Box, box_between
from LNHGLib.image.volume import Grid

SIZE_MM = (256.0, 252.0, 330.0)
CORNER_LPS_MM = (-165.0, -120.0, 0.0)
PLACED_AT_LPS_MM = (4.25, -21.25, -287.5)
"""Where the drawing's frame lies in the world, so that nothing can pass by taking indices for positions."""

AIR_HU = -1000
NOISE_HU = 44.0
BLUR_MM = 0.5
"""Standard deviation of the scanner's point spread in the slice."""

Field = np.ndarray
Point = np.ndarray


class Canvas:
    """The image being drawn and its voxels' positions in the phantom's frame.

    Args:
        seed: Of all that is random.
        spacing_mm: zyx.
    """

    def __init__(self, seed: int, spacing_mm: tuple[float, float, float]) -> None:
        self.rng = np.random.default_rng(seed)
        self.spacing_mm = np.array(spacing_mm)
        self.corner_mm = np.array(CORNER_LPS_MM[::-1])
        shape = np.round(np.array(SIZE_MM) / spacing_mm).astype(int)
        self.grid = Grid.aligned(shape, spacing_mm, np.add(CORNER_LPS_MM, PLACED_AT_LPS_MM))
        axes = zip(CORNER_LPS_MM[::-1], spacing_mm, shape, strict=True)
        self.lines = [start + step * np.arange(size, dtype=np.float32) for start, step, size in axes]
        self.z, self.y, self.x = np.meshgrid(*self.lines, indexing="ij", sparse=True)
        self.hu = np.full(shape, AIR_HU, np.float32)
        self.coarse, self.fine = self.smooth_noise(8.0), self.smooth_noise(2.5)

    def paint(self, distance: Field, hu: float | Field, box: Box | tuple[()] = (), soft_mm: float = 1.4) -> None:
        """Draw where a signed distance is negative, with partial volume at the edge.

        Args:
            distance: In mm, broadcast to the image or to the box.
            hu: One value, or one for each voxel.
            box: Slices zyx to draw in; the whole image by default.
            soft_mm: Width of the edge.
        """
        part = self.hu[box]
        distance = np.broadcast_to(distance, part.shape)
        near = distance < soft_mm / 2
        before = part[near]
        fraction = np.minimum(0.5 - distance[near] / soft_mm, 1)
        part[near] = before + fraction * ((hu if np.isscalar(hu) else np.broadcast_to(hu, part.shape)[near]) - before)

    def box(self, low: Point, high: Point) -> Box:
        """Return the voxels between two points.

        Args:
            low: (3,) least x, y, z in mm.
            high: (3,) greatest x, y, z in mm.
        """
        ends = zip(self.lines, low[::-1], high[::-1], strict=True)
        return box_between(*np.transpose([np.searchsorted(line, (start, stop)) for line, start, stop in ends]))

    def offsets(self, box: Box, center: Point) -> tuple[Field, Field, Field]:
        """Return x, y and z in mm of the voxels of a box relative to a point.

        Args:
            box: Slices zyx.
            center: (3,) x, y, z in mm.

        Returns:
            Three arrays that broadcast to the box.
        """
        return self.x[..., box[2]] - center[0], self.y[:, box[1]] - center[1], self.z[box[0]] - center[2]

    def tube(self, start: Point, end: Point, first_mm: float, last_mm: float, hu: float) -> None:
        """Draw a straight tube with round ends whose radius changes linearly.

        Args:
            start: (3,) x, y, z in mm.
            end: (3,) x, y, z in mm.
            first_mm: Radius at the start.
            last_mm: Radius at the end.
            hu: Inside.
        """
        box, distance = self.tube_distance(start, end, first_mm, last_mm)
        self.paint(distance, hu, box)

    def tube_distance(
        self, start: Point, end: Point, first_mm: float, last_mm: float, margin_mm: float = 2.0
    ) -> tuple[Box, Field]:
        """Return the box around a straight tube and the signed distance in mm there.

        Args:
            start: (3,) x, y, z in mm.
            end: (3,) x, y, z in mm.
            first_mm: Radius at the start.
            last_mm: Radius at the end.
            margin_mm: Of the box.
        """
        margin = max(first_mm, last_mm) + margin_mm
        box = self.box(np.minimum(start, end) - margin, np.maximum(start, end) + margin)
        x, y, z = self.offsets(box, start)
        along = (end - start).astype(np.float32)
        along_fraction = np.clip((x * along[0] + y * along[1] + z * along[2]) / (along @ along), 0, 1)
        x, y, z = (part - along_fraction * step for part, step in zip((x, y, z), along, strict=True))
        return box, np.sqrt(x**2 + y**2 + z**2) - (first_mm + along_fraction * np.float32(last_mm - first_mm))

    def values(self, field: Field, points: np.ndarray, outside: float = np.inf) -> np.ndarray:
        """Return the values of a field at the voxels nearest to points.

        Args:
            field: Of the image's shape.
            points: (..., 3) x, y, z in mm.
            outside: The value where the image has no voxel.
        """
        index = np.round((points[..., ::-1] - self.corner_mm) / self.spacing_mm).astype(int)
        inside = ((index >= 0) & (index < field.shape)).all(axis=-1)
        index = np.where(inside[..., None], index, 0)
        return np.where(inside, field[tuple(np.moveaxis(index, -1, 0))], outside)

    def smooth_noise(self, scale_mm: float) -> Field:
        """Return noise of unit standard deviation, correlated over about `scale_mm`, of the image's shape."""
        steps = np.maximum(np.round(scale_mm / self.spacing_mm).astype(int), 1)
        noise = self.rng.standard_normal(np.array(self.hu.shape) // steps + 3, dtype=np.float32)
        for axis in (2, 1, 0):
            index, rest = np.divmod(np.arange(self.hu.shape[axis]), steps[axis])
            fraction = (rest / steps[axis]).astype(np.float32).reshape(np.roll([-1, 1, 1], axis))
            low, high = noise.take(index, axis), noise.take(index + 1, axis)
            noise = low + fraction * (high - low)
        return noise * np.float32(1.5**1.5)

    def blur(self) -> None:
        """Blur the image in the slice as a scanner does."""
        for axis in (1, 2):
            self.hu = ndimage.gaussian_filter1d(self.hu, BLUR_MM / self.spacing_mm[axis], axis, truncate=3)

    def add_noise(self) -> None:
        """Add a scanner's noise: correlated in the slice, with the air clipped as scanners do."""
        noise = self.rng.standard_normal(self.hu.shape, dtype=np.float32)
        for axis in (1, 2):
            noise = ndimage.gaussian_filter1d(noise, 0.52 / self.spacing_mm[axis], axis)
        self.hu += noise * np.float32(NOISE_HU / noise.std())
        np.clip(self.hu, -1024, 3071, out=self.hu)


def oval(x: Field, y: Field, a: float, b: float, power: float) -> Field:
    """Return the distance from the middle to the edge of a rounded rectangle, in the direction of x, y.

    Args:
        x: Offsets in mm.
        y: Offsets in mm.
        a: Half the width in mm.
        b: Half the height in mm.
        power: 2 for an ellipse, more for squarer shapes.
    """
    x, y = np.abs(x) + 1e-3, np.abs(y) + 1e-3
    return np.hypot(x, y) / ((x / a) ** power + (y / b) ** power) ** (1 / power)


def oval_distance(x: Field, y: Field, a: float, b: float) -> Field:
    """Return the signed distance in mm of an ellipse in the axial plane.

    Args:
        x: Offsets in mm.
        y: Offsets in mm.
        a: Half the width in mm.
        b: Half the height in mm.
    """
    return np.hypot(x, y) - oval(x, y, a, b, 2.0)


def ellipsoid(c: Canvas, center: Sequence[float], radii: Sequence[float], tilt: float = 0.0) -> Field:
    """Return the signed distance in mm of an ellipsoid.

    Args:
        c: The image.
        center: x, y, z in mm.
        radii: Along x, y, z in mm.
        tilt: Radians that it is turned by in the axial plane.
    """
    x, y, z = c.x - center[0], c.y - center[1], c.z - center[2]
    x, y = x * cos(tilt) - y * sin(tilt), x * sin(tilt) + y * cos(tilt)
    return (np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2) - 1) * min(radii)


def smooth_union(a: Field, b: Field, round_mm: float) -> Field:
    """Return the signed distance in mm of two shapes together, with the edge between them rounded.

    Args:
        a: Signed distance in mm.
        b: Signed distance in mm.
        round_mm: Distances that differ by less are rounded.
    """
    return np.minimum(a, b) - np.maximum(round_mm - np.abs(a - b), 0) ** 2 / np.float32(4 * round_mm)
