"""What a nodule is attached to, by geometry from the CT: the pleura (or another thick wall), or a vessel.

The paper had its juxta-pleural and juxta-vascular nodules typed by radiologists (Table II); public data carry no such
reading, so both are measured, with constants that were set by looking at development crops. Arrays are zyx, lengths mm.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

TISSUE_HU = -500.0
"""Tissue from here up, lung below: about halfway between parenchyma and soft tissue."""

WALL_RADIUS_MM = 5.0
"""A ball of this radius fits into the chest wall, the mediastinum and the diaphragm, and not into a lung vessel."""

PLEURA_REACH_MM = 2.5
"""Juxta-pleural: the wall comes this close to the consensus, whose outline pixels are left out already."""

RIM_MM = 1.5
"""Around the consensus, voxels of the nodule's own blurred edge; they are no vessel."""

VESSEL_TOUCH_MM = 3.0
VESSEL_LENGTH_MM = 5.0
"""Juxta-vascular: tissue that begins this close to the nodule and goes on for so long away from it."""

CLOSING_MM = 10
"""What lies between air on both sides within this distance belongs to the lung of a cube."""

CONTEXT_MM = RIM_MM + VESSEL_TOUCH_MM + VESSEL_LENGTH_MM + 2 * WALL_RADIUS_MM
"""How far around the nodule the CT matters."""

CONNECTIVITY = np.ones((3, 3, 3), int)

DEFINITION = (
    "Juxta-pleural and juxta-vascular are measured on the CT, not read: tissue from "
    f"{TISSUE_HU:g} HU into which a ball of {WALL_RADIUS_MM:g} mm radius fits is wall, and a nodule within "
    f"{PLEURA_REACH_MM:g} mm of it is juxta-pleural; other tissue that begins within {VESSEL_TOUCH_MM:g} mm of the "
    f"nodule and goes on for {VESSEL_LENGTH_MM:g} mm away from it makes it juxta-vascular. A nodule can be both."
)


@dataclass(frozen=True)
class Attachment:
    """Whether a nodule lies at the wall of the lung, and whether at a vessel."""

    pleural: bool
    vascular: bool


def attachment(
    hu: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, float, float], valid: np.ndarray | None = None
) -> Attachment:
    """Find what touches a nodule, by the rule in `DEFINITION`.

    Args:
        hu: CT around the nodule (z, y, x); `CONTEXT_MM` of it on each side are enough.
        mask: The nodule, bool (z, y, x), not empty.
        spacing_mm: Voxel size zyx.
        valid: bool (z, y, x), False in padding; everything counts when None.
    """
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    tissue = (hu > TISSUE_HU) & (distance > 0)
    if valid is not None:
        tissue &= valid
    wall = tissue  # opened by the ball: the parts into which it fits; the array's border does not count as an edge
    if tissue.any() and not tissue.all():
        wall = ndimage.distance_transform_edt(tissue, sampling=spacing_mm) > WALL_RADIUS_MM
        if wall.any():
            wall = tissue & (ndimage.distance_transform_edt(~wall, sampling=spacing_mm) <= WALL_RADIUS_MM)
    pleural = bool(wall.any()) and float(distance[wall].min()) <= PLEURA_REACH_MM
    rest = tissue & (distance > RIM_MM)
    if wall.any():
        rest &= ndimage.distance_transform_edt(~wall, sampling=spacing_mm) > RIM_MM
    labels, count = ndimage.label(rest, CONNECTIVITY)
    if not count:
        return Attachment(pleural, vascular=False)
    numbers = np.arange(1, count + 1)
    near, far = ndimage.minimum(distance, labels, numbers), ndimage.maximum(distance, labels, numbers)
    vessels = (near <= VESSEL_TOUCH_MM) & (far - near >= VESSEL_LENGTH_MM)  # one piece begins here and leads away
    return Attachment(pleural, bool(vessels.any()))


def lung_of_cube(hu: np.ndarray) -> np.ndarray:
    """Return air with what lies within 10 mm of it on both sides, for cubes too small to show a whole lung.

    Args:
        hu: CT (z, y, x) at 1 mm.

    Returns:
        bool (z, y, x).
    """
    air = np.pad(hu < TISSUE_HU, CLOSING_MM, mode="edge")
    closed = ndimage.binary_closing(air, ndimage.generate_binary_structure(3, 1), CLOSING_MM)
    return closed[(slice(CLOSING_MM, -CLOSING_MM),) * 3]
