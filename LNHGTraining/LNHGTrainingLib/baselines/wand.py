"""Labels by a click: the magic wand of document 001, and one that is mended (docs/method.md, section 13.2).

A slice around a click is seen in polar coordinates, and a contour goes once around. Slices are HU (y, x) at 1 mm.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.graph import MCP

ROUGHNESS = 2
"""Angles for each pixel of the largest circle."""
FIRST_PX = 2
"""The document's least radius."""
LEAST_MM, STEP_MM = 1.0, 0.5
"""The least radius here, and the distance of radii."""
OF_DIAMETER, BEYOND_MM = 0.75, 2.0
"""The greatest radius: so much of the diameter, and so much more."""
ONE_STEP = [(-1, 1), (0, 1), (1, 1)]
"""From one angle to the next the radius changes by a step at the most."""

Wand = Callable[[np.ndarray, tuple[float, float], float], np.ndarray]


def trace_as_document(hu: np.ndarray, click: tuple[float, float], diameter_mm: float) -> np.ndarray:
    """Return the document's mask: 2.5 to 3 times too large (register T3), of a contour that is not closed (T4).

    The image is negated and the diameter is taken for a radius, so that the contour looks for the darkest pixels around
    the nodule. From the start at the first angle it goes to the best of three neighbors at each next one.

    Args:
        hu: a slice.
        click: (y, x) in the nodule.
        diameter_mm: of the nodule.
    """
    last = int(diameter_mm) + 2
    angles = np.linspace(0, 2 * np.pi, int(2 * np.pi * last * ROUGHNESS))
    radii = np.arange(FIRST_PX, last, dtype=float)
    values = _polar(-hu.astype(float), click, radii, angles, order=0)
    after = np.pad(values[:, 1], 1, constant_values=-np.inf)
    pairs = values[:, 0] + np.max([after[:-2], after[1:-1], after[2:]], axis=0)
    at = len(radii) - 1 - int(pairs[::-1].argmax())
    contour = [at]
    for column in values.T[1:]:
        neighbors = range(max(at - 1, 0), min(at + 2, len(radii)))
        at = max(neighbors, key=lambda row, column=column: column[row])
        contour.append(at)
    return _inside(hu.shape, click, angles, radii[contour])


def trace_closed(hu: np.ndarray, click: tuple[float, float], diameter_mm: float) -> np.ndarray:
    """Return the mask inside the closed contour across which the CT falls most, found by dynamic programming.

    Args:
        hu: a slice.
        click: (y, x) in the nodule.
        diameter_mm: of the nodule in this slice.
    """
    radii = np.arange(LEAST_MM, OF_DIAMETER * diameter_mm + BEYOND_MM, STEP_MM)
    angles = np.linspace(0, 2 * np.pi, int(2 * np.pi * radii[-1] * ROUGHNESS) + 1)
    inner, outer = (_polar(hu.astype(float), click, radii + side, angles, order=1) for side in (-0.5, 0.5))
    drop = (inner - outer)[:, :-1]  # the last angle is the first one again
    way = closed_path(drop.max() - drop)
    return _inside(hu.shape, click, angles, radii[[*way, way[0]]])


def closed_path(costs: np.ndarray) -> list[int]:
    """Return the row of each column on the cheapest path once around, of all that end in the row where they began.

    From one column to the next, and from the last to the first, the row changes by one at the most.

    Args:
        costs: at least 0 (rows, columns).
    """
    rows, columns = costs.shape
    paths = MCP(np.pad(costs, ((0, 0), (0, 1))), offsets=ONE_STEP)
    ways = []
    for start in range(rows):
        summed, _ = paths.find_costs([(start, 0)], [(start, columns)])
        ways.append((summed[start, -1], [row for row, _ in paths.traceback((start, columns))]))
    return min(ways)[1][:-1]


def label_nodule(
    hu: np.ndarray, center: tuple[float, float, float], diameter_mm: float, trace: Wand, shrinks: bool = True
) -> np.ndarray:
    """Trace a nodule in each slice that a ball of its diameter reaches.

    Args:
        hu: HU (z, y, x) at 1 mm.
        center: (z, y, x) of the nodule.
        diameter_mm: of the nodule.
        trace: the wand.
        shrinks: whether the diameter in a slice is that of the ball's section, not that of the nodule.

    Returns:
        bool (z, y, x).
    """
    mask = np.zeros(hu.shape, bool)
    for z in range(len(hu)):
        section = diameter_mm**2 - 4 * (z - center[0]) ** 2
        if section > 0:
            mask[z] = trace(hu[z], center[1:], float(np.sqrt(section)) if shrinks else diameter_mm)
    return mask


def ball(shape: tuple[int, ...], center: tuple[float, float, float], diameter_mm: float) -> np.ndarray:
    """Return a ball, bool (z, y, x) at 1 mm.

    Args:
        shape: of the mask.
        center: of the ball.
        diameter_mm: of the ball.
    """
    offsets = np.indices(shape) - np.reshape(center, (3, 1, 1, 1))
    return (offsets**2).sum(axis=0) <= (diameter_mm / 2) ** 2


def _polar(image: np.ndarray, click: tuple, radii: np.ndarray, angles: np.ndarray, order: int) -> np.ndarray:
    """Return the image at radii (rows) and angles (columns) around a click."""
    y, x = (at + radii[:, None] * turned for at, turned in zip(click, (np.sin(angles), np.cos(angles)), strict=True))
    return ndimage.map_coordinates(image, [y, x], order=order, mode="nearest")


def _inside(shape: tuple[int, ...], click: tuple, angles: np.ndarray, contour: np.ndarray) -> np.ndarray:
    """Return the pixels within a contour of one radius for each angle."""
    y, x = (np.indices(shape).T - np.asarray(click)).T
    return np.hypot(y, x) <= np.interp(np.arctan2(y, x) % (2 * np.pi), angles, contour)
