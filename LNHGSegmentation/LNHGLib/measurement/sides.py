"""On which side of the chest a point lies, told from the patient's anatomy: both lungs and the spine between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from LNHGLib.image.volume import Grid
from LNHGLib.measurement.location import split_lungs
from LNHGLib.measurement.spine import Spine

STEP_MM = 4.0
"""The lungs are told apart on voxels of about this size: a side needs no more."""

LEFT, RIGHT = "left", "right"
HEADER_LEFT = (1.0, 0.0, 0.0)
"""The patient's left in LPS."""

HEADER_FRONT = (0.0, -1.0, 0.0)
TURNED_DEG, BARELY_TURNED_DEG = 20.0, 60.0
"""A patient who faces another way than the file says by more than this has a left of his own."""

AGREEMENT = 0.7
"""Cosine between the ways vertebrae and body face."""

OPPOSED_DEG = 120.0
"""A patient so far turned may as well be mirrored: only the heart tells."""

HEART_MM = 5.0
HEART_BOX_MM = (60.0, (30.0, 130.0))
"""To either side of the spine and in front of it: the heart fills more of the left half."""

HEART_HEIGHT = (0.2, 0.5)
"""Fractions of the lungs' height."""

ONE_SIDED_MM = 20.0
"""A piece of lung whose middle is nearer to the midline may belong to both lungs."""

UNSURE_MM = 5.0


@dataclass(frozen=True, eq=False)
class Sides:
    """Both sides of a chest.

    Attributes:
        left: (3,) unit vector in LPS to the patient's left.
        midline_mm: of the plane between the sides, along `left`.
        pieces: the lungs: (n, 3) LPS mm points and the side of each; None for a piece that reaches over both sides.
    """

    left: np.ndarray
    midline_mm: float
    pieces: tuple[tuple[np.ndarray, str | None], ...]

    @classmethod
    def of(cls, lungs: np.ndarray, grid: Grid, spine: Spine | None = None) -> "Sides | None":
        """Tell the sides of a chest apart; None where neither both lungs nor one of them and the spine are seen.

        Args:
            lungs: boolean (z, y, x), not empty.
            grid: its geometry, in any orientation.
            spine: where it is known.
        """
        steps = [max(1, int(STEP_MM / spacing)) for spacing in grid.spacing_mm]
        coarse = np.ascontiguousarray(lungs[tuple(slice(None, None, step) for step in steps)])
        spacing_mm = tuple(step * spacing for step, spacing in zip(steps, grid.spacing_mm, strict=True))
        parts = split_lungs(coarse, spacing_mm)
        points = [grid.index_to_lps(np.argwhere(part) * steps) for part in parts]
        left = _left(points, spine)
        if left is None:
            return None
        if _are_two_lungs(points, left, spine):
            points.sort(key=lambda lung: -(lung @ left).mean())
            middle = float(np.mean([(lung @ left).mean() for lung in points]))
            return cls(left, middle, ((points[0], LEFT), (points[1], RIGHT)))
        if spine is None:
            return None
        middle, pieces = float(spine.point_lps_mm @ left), []
        for part in parts:
            labels, count = ndimage.label(part)
            for number in range(1, count + 1):
                piece = grid.index_to_lps(np.argwhere(labels == number) * steps)
                offset = (piece @ left).mean() - middle
                side = None if abs(offset) < ONE_SIDED_MM else LEFT if offset > 0 else RIGHT
                pieces.append((piece, side))
        return cls(left, middle, tuple(pieces))

    @cached_property
    def _trees(self) -> list[cKDTree]:
        return [cKDTree(points) for points, _ in self.pieces]

    def plane(self) -> dict:
        """Return the plane between the sides as a report holds it: direction to the left, and offset along it."""
        return {"left_lps": self.left.tolist(), "midline_mm": self.midline_mm}

    def side(self, point_lps_mm: tuple[float, float, float]) -> str | None:
        """Return "left" or "right": of the nearest piece of lung, or of the midline where the piece is on both sides.

        None where the point is too near to the midline to tell.
        """
        distances = [tree.query(point_lps_mm)[0] for tree in self._trees]
        side = self.pieces[int(np.argmin(distances))][1]
        return side or side_of_plane(self.plane(), point_lps_mm)


def side_of_plane(plane: Mapping[str, Any], point_lps_mm: Sequence[float]) -> str | None:
    """Return the side of the plane between the sides on which a point lies; None too near to it, or without a plane.

    Args:
        plane: as from `Sides.plane`; results of older versions hold its x instead.
        point_lps_mm: the point.
    """
    middle = plane.get("midline_mm", plane.get("midline_x_lps_mm"))
    if middle is None:
        return None
    offset = float(np.dot(point_lps_mm, plane.get("left_lps", HEADER_LEFT))) - middle
    return None if abs(offset) < UNSURE_MM else LEFT if offset > 0 else RIGHT


def _left(lungs: list[np.ndarray], spine: Spine | None) -> np.ndarray | None:
    """Return the patient's left: as the file says, or as vertebrae and body say together; None where it is unsure."""
    left = np.array(HEADER_LEFT)
    fronts = [] if spine is None else [front for front in (spine.vertebra, spine.body) if front is not None]
    turned = [np.degrees(np.arccos(np.clip(front @ HEADER_FRONT, -1, 1))) for front in fronts]
    if min(turned, default=0.0) <= TURNED_DEG:
        return left
    front = fronts[-1]
    if len(fronts) < 2 or fronts[0] @ front < AGREEMENT:
        return left if max(turned) <= BARELY_TURNED_DEG and _are_two_lungs(lungs, left, spine) else None
    left = np.array([-front[1], front[0], 0.0])
    return None if turned[-1] > OPPOSED_DEG and _heart_mm(lungs, left, front, spine) < HEART_MM else left


def _heart_mm(lungs: list[np.ndarray], left: np.ndarray, front: np.ndarray, spine: Spine) -> float:
    """Return how far to the left the tissue between both lungs lies on average; 0 where only one lung is seen."""
    if not _are_two_lungs(lungs, left, spine):
        return 0.0
    offsets = np.concatenate(lungs) - spine.point_lps_mm
    low, high = np.quantile(offsets[:, 2], HEART_HEIGHT)
    aside_mm, (near_mm, far_mm) = HEART_BOX_MM
    aside, ahead = offsets @ left, offsets @ front
    inside = (np.abs(aside) < aside_mm) & (ahead > near_mm) & (ahead < far_mm)
    aside = aside[inside & (offsets[:, 2] >= low) & (offsets[:, 2] <= high)]
    return -float(aside.mean()) if len(aside) else 0.0


def _are_two_lungs(parts: list[np.ndarray], left: np.ndarray, spine: Spine | None) -> bool:
    """Tell two lungs from two lobes of one: they lie beside each other, and the spine between them."""
    if len(parts) < 2:
        return False
    first, second = (part.mean(axis=0) for part in parts)
    beside = abs((first - second) @ left) > 0.5 * np.linalg.norm(first - second)
    if spine is None:
        return bool(beside)
    return bool(((first - spine.point_lps_mm) @ left) * ((second - spine.point_lps_mm) @ left) < 0 and beside)
