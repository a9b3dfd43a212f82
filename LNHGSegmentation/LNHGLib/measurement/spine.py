"""The spine on a chest CT: where it is and which way it faces, by the spinal canal, the vertebrae and the body."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from LNHGLib.image.volume import Grid

BONE_HU = 180
"""The rim of vertebrae in voxels of about 2 mm; blood with contrast medium has it too, but leaves no canal."""

VERTEBRA_HU = 120
VERTEBRA_MM = 35.0
"""Around the canal: the vertebra's body lies within, ribs and aorta hardly."""

CLOSING_MM = 25.0
"""Along the canal; the arches of the vertebrae leave gaps of this length in its wall."""

CANAL_MM2 = (40.0, 700.0)
MIN_CANAL_MM = (40.0, 80.0)
"""Length of a canal within the view, and of one at its edge."""

EDGE_MM = 40.0
"""A canal that the view cuts is completed by its mirror image."""

MIN_FORWARD_MM = 2.0
"""The vertebra's bone lies this much in front of the canal on average, or the way it faces is not known."""

MAX_CUT = 0.25
"""Of the view's edge that the body may touch: else its middle is not seen."""


@dataclass(frozen=True)
class Spine:
    """The spine in the patient's space.

    Attributes:
        point_lps_mm: the middle of the spinal canal.
        vertebra: (3,) unit vector in LPS from the canal to the vertebrae's bodies; None where they do not tell.
        body: (3,) unit vector in LPS from the canal to the middle of the body; None where the view cuts the body.
    """

    point_lps_mm: np.ndarray
    vertebra: np.ndarray | None = None
    body: np.ndarray | None = None


def find_spine(hu: np.ndarray, body: np.ndarray, grid: Grid) -> Spine | None:
    """Return the spine, found by the longest stack of small holes in bone; None where no stack is long enough.

    Args:
        hu: (z, y, x) HU on voxels of about 2 mm, z to the head.
        body: (z, y, x) bool, the body with all air inside.
        grid: its geometry.
    """
    changing = np.ptp(hu, axis=0) > 0  # along z: blank parts, too, are outside the view
    if not changing.any():
        changing[:] = True
    view = (slice(0, len(hu)), *ndimage.find_objects(changing.astype(np.uint8))[0])
    hu, body, grid = hu[view], body[view], grid.crop(view)
    _, dy, dx = grid.spacing_mm
    ry, rx = (min(int(EDGE_MM / s), n) for s, n in zip((dy, dx), hu.shape[1:], strict=True))
    padded = np.pad(hu, ((0, 0), (ry, ry), (rx, rx)), mode="symmetric")
    canal = _canal(padded, grid.spacing_mm, (ry, rx))
    if not len(canal):
        return None
    heights = np.unique(canal[:, 0])
    path = np.array([canal[canal[:, 0] == z].mean(axis=0) for z in heights])
    inside = path - [0, ry, rx]
    touched = [np.mean(side) for side in (body[:, 0], body[:, -1], body[:, :, 0], body[:, :, -1])]
    middle = None
    if max(touched) <= MAX_CUT:
        voxels = np.argwhere(body[heights])
        middle = _direction((voxels.mean(axis=0) - inside.mean(axis=0))[1:], grid)
    vertebra = _vertebra_mm(padded[heights] > VERTEBRA_HU, path[:, 1:], (dy, dx)) / (dy, dx)
    return Spine(grid.index_to_lps(np.median(inside, axis=0)), _direction(vertebra, grid), middle)


def _canal(hu: np.ndarray, spacing_mm: tuple[float, float, float], edge: tuple[int, int]) -> np.ndarray:
    """Return the (n, 3) voxels of the spinal canal; none where no stack of holes is long enough.

    Args:
        hu: (z, y, x) HU, continued beyond the view.
        spacing_mm: zyx.
        edge: voxels along y and x by which it is continued.
    """
    dz, dy, dx = spacing_mm
    bone = ndimage.maximum_filter1d(hu, max(1, int(CLOSING_MM / dz)), axis=0) > BONE_HU
    axial = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]
    holes, count = ndimage.label(~bone, structure=axial)
    area = np.bincount(holes.ravel(), minlength=count + 1) * dy * dx
    boxes = ndimage.find_objects(holes)
    extent = np.array([(0.0, 0.0)] + [((y.stop - y.start) * dy, (x.stop - x.start) * dx) for _, y, x in boxes])
    fits = (area > CANAL_MM2[0]) & (area < CANAL_MM2[1]) & (extent.max(axis=1) < 3 * extent.min(axis=1))
    fits[np.concatenate([holes[:, [0, -1]].ravel(), holes[:, :, [0, -1]].ravel()])] = False
    stacks, _ = ndimage.label(fits[holes])
    length_mm = [0.0]
    for z, *plane in ndimage.find_objects(stacks):
        middle = [(part.start + part.stop) / 2 for part in plane]
        cut = any(not m < at < n - m for at, m, n in zip(middle, edge, hu.shape[1:], strict=True))
        beyond = any(not m <= at <= n - m for at, m, n in zip(middle, edge, hu.shape[1:], strict=True))
        length = (z.stop - z.start) * dz
        length_mm.append(length if length >= MIN_CANAL_MM[cut] and not beyond else 0.0)
    best = int(np.argmax(length_mm))
    return np.argwhere(stacks == best) if best else np.empty((0, 3))


def _vertebra_mm(bone: np.ndarray, path: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return y and x in mm from the canal to the middle of the bone around it.

    Args:
        bone: (n, y, x) bool, the slices with the canal.
        path: (n, 2) y and x of the canal in each.
        spacing_mm: along y and x.
    """
    _, y, x = np.nonzero(bone)
    offsets = np.column_stack([y, x]) - np.repeat(path, np.count_nonzero(bone, axis=(1, 2)), axis=0)
    offsets = offsets * spacing_mm
    near = offsets[np.hypot(*offsets.T) < VERTEBRA_MM]
    mean = near.mean(axis=0) if len(near) else np.zeros(2)
    return mean if np.hypot(*mean) >= MIN_FORWARD_MM else np.zeros(2)


def _direction(step: np.ndarray, grid: Grid) -> np.ndarray | None:
    """Return the unit vector in LPS, axial, of a step along y and x in voxels; None for no step."""
    vector = grid.affine[:3, 1:3] @ step
    vector[2] = 0.0
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else None
