"""The lung region of a chest CT by thresholds, components and morphology, on a grid of about 2 mm.

Every array here is zyx with z to the head, y to the back and x to the left.
"""

import numpy as np
from scipy import ndimage

from LNHGLib.image.boxes import box_around_mask, grow_box
from LNHGLib.measurement.location import distance_mm, split_lungs

TISSUE_HU = -300
LUNG_HU = -400
DARK_HU = -945
"""Blocks of outside air are darker, blocks of lung lighter, but for severe emphysema."""

LUNG_MEAN_HU = (-965, -550)
"""Mean of a pocket of air without its rim: gas in stomach and bowel is below, stool and mixtures above."""

LUMEN_HU = (-860, -900, -930, -950)
WALL_MM = 3.0
POCKET_ML = 3.0
POCKET_FRACTION = 0.03
CLOSING_MM = 25.0
"""Fills dents of up to 50 mm: a mass of 30 mm at a flat pleura is covered with room to spare."""

MARGIN_MM = 3.0
MAIN_AIRWAY_MM = 4.0

Spacing = tuple[float, float, float]

_IN_PLANE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]


def lung_air(hu: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the air of the lungs.

    Args:
        hu: (z, y, x) int16 HU on a grid of about 2 mm.
        spacing_mm: zyx.

    Returns:
        Three boolean arrays like `hu`: the lungs' air without vessels, trachea and bronchi; the lumen of trachea and
        bronchi; the body with all air inside. All air is False where there is no lung.
    """
    body = _body(hu, spacing_mm)
    air = body & (hu < LUNG_HU)
    airway = _airway(air, hu, spacing_mm)
    pockets, count = ndimage.label(air & ~ndimage.binary_dilation(airway))
    ml = np.bincount(pockets.ravel(), minlength=count + 1) * np.prod(spacing_mm) / 1000
    core = np.where(ndimage.binary_erosion(pockets > 0), pockets, 0)
    mean = _means(hu, core, count)
    lung = (ml > POCKET_ML) & (mean > LUNG_MEAN_HU[0]) & (mean < LUNG_MEAN_HU[1])
    lung[0] = False
    lung &= ml > POCKET_FRACTION * ml[lung].max(initial=0.0)
    return lung[pockets], airway, body


def lung_region(air: np.ndarray, airway: np.ndarray, body: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Close each lung on its own with a ball, so that nodules and vessels lie inside and the mediastinum does not.

    Args:
        air: The lungs' air, as from `lung_air`; so are `airway` and `body`.
        airway: The lumen of trachea and bronchi; its wide parts are cut out.
        body: The body with all air inside; nothing outside is returned.
        spacing_mm: zyx.

    Returns:
        Boolean array like `air`.
    """
    region, reach = np.zeros_like(air), [int(np.ceil(CLOSING_MM / s)) for s in spacing_mm]
    rz, ry, rx = (length + 1 for length in reach)
    for side in split_lungs(air, spacing_mm):
        box = grow_box(box_around_mask(side), reach, side.shape)
        lung = side[box]
        below, above = (rz if end.any() else 0 for end in (lung[0], lung[-1]))  # one that the scan's end cuts goes on
        padded = np.pad(np.pad(lung, ((below, above), (0, 0), (0, 0)), mode="edge"), ((0, 0), (ry, ry), (rx, rx)))
        near = distance_mm(padded, spacing_mm) <= CLOSING_MM
        closed = distance_mm(~near, spacing_mm) > CLOSING_MM - MARGIN_MM
        region[box] |= ndimage.binary_fill_holes(closed)[below : below + len(lung), ry:-ry, rx:-rx]
    return region & body & ~_opened(airway, MAIN_AIRWAY_MM, spacing_mm)


def _body(hu: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Return the body with all air inside, also where the field of view cuts the body.

    Slice by slice because in three dimensions the outside air runs through mouth and trachea into the lungs.
    """
    # Constant corners outside a scanner's round field of view, which may touch lung that is cut by it.
    constant, _ = ndimage.label((np.ptp(hu, axis=0) == 0) & (hu[0] < LUNG_MEAN_HU[0]) & (len(hu) > 1))
    corners = constant[[0, 0, -1, -1], [0, -1, 0, -1]]
    padding = np.broadcast_to(np.isin(constant, corners[corners > 0]), hu.shape)
    labels, _ = ndimage.label(_opened((hu > TISSUE_HU) | padding, WALL_MM, spacing_mm) & ~padding)
    tissue = labels == 1 + np.bincount(labels.ravel(), minlength=2)[1:].argmax()
    gaps, count = ndimage.label(~(tissue | padding), structure=_IN_PLANE)
    rim = np.zeros(count + 1, bool)
    for side in (gaps[:, 0], gaps[:, -1], gaps[:, :, 0], gaps[:, :, -1]):
        rim[side] = True
    rim[gaps[ndimage.binary_dilation(padding, _IN_PLANE)]] = True
    behind = np.logical_or.accumulate(tissue, axis=1)
    between = behind & np.logical_or.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
    cut_lung = (_means(hu < DARK_HU, gaps, count) < 0.3) & (_means(between, gaps, count) > 0.3)
    outside = rim & ~cut_lung
    outside[0] = False
    return ~(outside[gaps] | padding)


def _airway(air: np.ndarray, hu: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Return the trachea and what air of its density reaches from there without spreading into the lungs."""
    trachea = _trachea(air & (hu < LUMEN_HU[1]), spacing_mm)
    if not trachea.any():
        return trachea
    limit = 60e3 / np.prod(spacing_mm) + 2 * trachea.sum()
    for threshold in LUMEN_HU:
        labels, _ = ndimage.label((air & (hu < threshold)) | trachea)
        grown = np.isin(labels, labels[trachea])
        if grown.sum() <= limit:
            return grown
    return trachea


def _trachea(lumen: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Return the longest stack of small, round cross-sections near the middle; nothing if none reaches 20 mm."""
    dz, dy, dx = spacing_mm
    spots, count = ndimage.label(lumen, structure=_IN_PLANE)
    boxes = ndimage.find_objects(spots)
    height = np.array([(y.stop - y.start) * dy for _, y, _ in boxes])
    width = np.array([(x.stop - x.start) * dx for _, _, x in boxes])
    area = np.bincount(spots.ravel(), minlength=count + 1)[1:] * dy * dx
    round_ = (area > 0.5 * width * height) & (np.maximum(width, height) < 3 * np.minimum(width, height))
    fits = np.concatenate([[False], round_ & (area > 50) & (area < 900)])
    stacks, count = ndimage.label(fits[spots])
    boxes = ndimage.find_objects(stacks)
    length = np.array([0.0] + [(z.stop - z.start) * dz for z, _, _ in boxes])
    off_mm = np.array([0.0] + [abs(x.start + x.stop - lumen.shape[2]) / 2 * dx for _, _, x in boxes])
    length[(off_mm > 60) | (length < 20)] = 0
    return (stacks == length.argmax()) & (stacks > 0) if length.any() else np.zeros_like(lumen)


def _opened(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """Remove in every axial slice what is thinner than twice the radius, as the shell of the table is."""
    _, dy, dx = spacing_mm
    ry, rx = (int(np.ceil(radius_mm / s)) for s in (dy, dx))
    y, x = np.ogrid[-ry : ry + 1, -rx : rx + 1]
    return ndimage.binary_opening(mask, (np.hypot(y * dy, x * dx) <= radius_mm)[None])


def _means(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Mean of the values under each label from 0 to count, 0 where a label has no voxel."""
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    return np.bincount(labels.ravel(), values.ravel(), minlength=count + 1) / np.maximum(voxels, 1)
