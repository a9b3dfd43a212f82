"""Outlines from two looks, at the CT and at the CT after half a turn in the axial plane, and outlines trimmed.

A model's card asks for two looks by `half_turn` in its `generator` part. Arrays are zyx on the working grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from LNHGLib.components import components, nearest
from LNHGLib.fusion import Finding

Look = Callable[..., np.ndarray]
"""What draws a nodule image of a CT: (z, y, x) -> same shape."""

MARGIN = 16
"""Voxels around a finding that the second look sees."""
CORE = 0.5
"""Share of a nodule's depth that its core has at least."""
NEAR_MM = 5.0
"""How far from its place a nodule's depth is looked for."""
RIM = 4
"""Voxels at the border of what it sees; an outline that grows into them is not held there, and the first one stays."""


def turned(look: Look, ct: np.ndarray) -> np.ndarray:
    """What `look` draws of the CT after half a turn in the axial plane, turned back: (z, y, x) -> same shape."""
    return look(np.ascontiguousarray(ct[:, ::-1, ::-1]))[:, ::-1, ::-1]


def after_second(image: np.ndarray, look: Look, ct: np.ndarray) -> np.ndarray:
    """The mean of the image that `look` drew of a CT and that of its half turn: steadier, for twice the work."""
    return (image + turned(look, ct)) / 2


def two_looks(look: Look) -> Look:
    """What draws `after_second` of a CT."""
    return lambda ct: after_second(look(ct), look, ct)


def asked_looks(look: Look, card: Mapping[str, Any]) -> Look:
    """Two looks where a model's card asks for them, else the one."""
    return two_looks(look) if card.get("generator", {}).get("half_turn") else look


def trimmed(mask: np.ndarray, place: Sequence[float], spacing_mm: Sequence[float]) -> np.ndarray:
    """A nodule without the vessels and walls that its outline ran along.

    Its depth is the radius of the largest ball in it near its place, its core the part there that is at least half as
    deep. Kept is what lies within that depth of the core.

    Args:
        mask: bool (z, y, x), a component.
        place: index (z, y, x) where the nodule is.
        spacing_mm: of the voxels (z, y, x).

    Returns:
        The connected part of the mask that is kept; bool (z, y, x).
    """
    if not mask.any():
        return mask
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    part = np.pad(mask[box], 1)  # what the volume's border cuts ends there
    place = np.asarray(place) - [edge.start - 1 for edge in box]
    apart_mm = np.linalg.norm((np.stack(np.indices(part.shape), -1) - place) * spacing_mm, axis=-1)
    depth_mm = ndimage.distance_transform_edt(part, sampling=spacing_mm)
    deepest_mm = depth_mm[apart_mm <= NEAR_MM].max(initial=0) or depth_mm.max()
    core = nearest(depth_mm >= CORE * deepest_mm, place, spacing_mm)
    kept = part & (ndimage.distance_transform_edt(~core, sampling=spacing_mm) <= deepest_mm)
    result = np.zeros_like(mask)
    result[box] = nearest(kept, place, spacing_mm)[1:-1, 1:-1, 1:-1]
    return result


def redraw(
    ct_norm: np.ndarray,
    generated: np.ndarray,
    labels: np.ndarray,
    findings: Sequence[Finding],
    look: Look,
    threshold: float,
    report: Callable[[float], None] = lambda fraction: None,
) -> list[Finding]:
    """Draw the findings' outlines and signal anew, in place; those without components stay as they are.

    Args:
        ct_norm: normalized CT, float32.
        generated: nodule image of the first look, float32; takes the mean of both around each finding.
        labels: component numbers; a finding's new outline has its first number.
        findings: what is kept.
        look: the second look.
        threshold: of the nodule image.
        report: told the fraction done.

    Returns:
        The findings in their order, with boxes that hold their new outlines.
    """
    boxes = ndimage.find_objects(labels)
    drawn = [finding for finding in findings if finding.labels]
    kept = sorted(number for finding in drawn for number in finding.labels)
    widened = {}
    for done, finding in enumerate(drawn):
        report(done / len(drawn))
        box = _around([boxes[number - 1] for number in finding.labels], labels.shape)
        old = np.isin(labels[box], finding.labels)
        others = np.isin(labels[box], kept) & ~old
        image = after_second(generated[box], look, ct_norm[box])
        new = _touching(image > threshold, old) & ~others
        if new.any():
            labels[box][old] = 0
            labels[box][new] = finding.labels[0]
            generated[box][~others] = image[~others]
            widened[finding] = replace(finding, box=_holding(finding.box, new, box))
    return [widened.get(finding, finding) for finding in findings]


def _around(boxes: list[tuple[slice, ...]], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The box of all boxes with a margin, within the volume."""
    axes = zip(zip(*boxes, strict=True), shape, strict=True)
    return tuple(
        slice(max(min(p.start for p in parts) - MARGIN, 0), min(max(p.stop for p in parts) + MARGIN, size))
        for parts, size in axes
    )


def _holding(edges: tuple[float, ...], mask: np.ndarray, box: tuple[slice, ...]) -> tuple[float, ...]:
    """Voxel edges z0, y0, x0, z1, y1, x1 around those given and the mask, which lies in `box` of the volume."""
    points = np.argwhere(mask) + [part.start for part in box]
    low, high = np.minimum(edges[:3], points.min(0)), np.maximum(edges[3:], points.max(0) + 1)
    return tuple(map(float, (*low, *high)))


def _touching(mask: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The components of the mask that meet the old outline; nothing where they grow into the rim."""
    numbers = components(mask)
    met = np.unique(numbers[old])
    new, inner = np.isin(numbers, met[met > 0]), np.zeros(mask.shape, bool)
    inner[(slice(RIM, -RIM),) * 3] = True
    return new & (inner | old).all(where=new)
