"""Further looks at what the generator found: at the CT's half turn, and through a second generator.

A model's card asks for them by `half_turn` in its `generator` part and by a part `second_generator`. The mean of all
looks gives a finding its score and its outline. Arrays are zyx on the working grid.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from LNHGLib.segmentation.components import component_scores, components
from LNHGLib.segmentation.fusion import Finding, FusionOptions, combine

Look = Callable[..., np.ndarray]
"""What draws a nodule image of a CT: (z, y, x) -> same shape."""

MARGIN = 16
"""Voxels around a finding that the further looks see."""
RIM = 4
"""Voxels at the border of what they see; an outline that grows into them is not held there, and the first one stays."""


@dataclass(frozen=True, eq=False)
class View:
    """What all looks together made of a finding's surroundings.

    Attributes:
        box: of the working grid.
        image: mean nodule image there, float32.
    """

    box: tuple[slice, ...]
    image: np.ndarray


def half_turned(look: Look) -> Look:
    """What draws, turned back, what `look` draws of the CT after half a turn in the axial plane."""
    return lambda ct: look(np.ascontiguousarray(ct[:, ::-1, ::-1]))[:, ::-1, ::-1]


def further(first: Look, second: Look | None, card: Mapping[str, Any]) -> list[Look]:
    """The looks that a model's card asks for beside the first.

    Args:
        first: the generator's.
        second: the second generator's, where the model has one.
        card: of the model.
    """
    turned = [half_turned(first)] if card.get("generator", {}).get("half_turn") else []
    return [*turned, *([second] if second else [])]


def with_others(image: np.ndarray, others: Sequence[Look], ct: np.ndarray) -> np.ndarray:
    """The mean of an image of a CT and of what other looks draw of it."""
    return sum((other(ct) for other in others), start=image) / (1 + len(others))


def mean_look(first: Look, others: Sequence[Look]) -> Look:
    """What draws the mean of all these looks."""
    return lambda ct: with_others(first(ct), others, ct)


def look_again(
    ct_norm: np.ndarray,
    generated: np.ndarray,
    labels: np.ndarray,
    findings: Iterable[Finding],
    others: Sequence[Look],
    options: FusionOptions,
    report: Callable[[float], None] = lambda fraction: None,
) -> dict[Finding, View]:
    """Findings with the scores of all looks, best first, and what the looks made of them.

    Args:
        ct_norm: normalized CT, float32.
        generated: nodule image of the first look, float32.
        labels: component numbers.
        findings: with components.
        others: the further looks.
        options: the card's `fusion` part.
        report: told the fraction done.
    """
    boxes, todo, views = ndimage.find_objects(labels), list(findings), {}
    for done, finding in enumerate(todo):
        report(done / len(todo))
        box = _around([boxes[number - 1] for number in finding.labels], labels.shape)
        image = with_others(generated[box], others, ct_norm[box])
        views[rescored(finding, labels[box], image, ct_norm[box], options)] = View(box, image)
    return dict(sorted(views.items(), key=lambda item: -item[0].score))


def rescored(
    finding: Finding, labels: np.ndarray, image: np.ndarray, ct_norm: np.ndarray, options: FusionOptions
) -> Finding:
    """The finding with the segmenter's score that an image gives to its components.

    Args:
        finding: with components.
        labels: component numbers around it.
        image: nodule image there, float32.
        ct_norm: normalized CT there.
        options: the card's `fusion` part.
    """
    own = np.where(np.isin(labels, finding.labels), labels, 0)
    numbers = list(finding.labels)
    scores = component_scores(own, image, ct_norm)[numbers]
    segmenter = float(np.average(scores, weights=np.bincount(own.ravel())[numbers]))
    score = combine(segmenter, finding.detector_score, options.weight, options.floor)
    return replace(finding, segmenter_score=segmenter, score=score)


def redraw(
    generated: np.ndarray,
    labels: np.ndarray,
    findings: Sequence[Finding],
    views: Mapping[Finding, View],
    threshold: float,
) -> list[Finding]:
    """Draw the findings' outlines and signal anew, in place; those that no look was taken at stay as they are.

    Args:
        generated: nodule image of the first look, float32; takes the mean of all looks around each finding.
        labels: component numbers; a finding's new outline has its first number.
        findings: what is kept.
        views: from `look_again`.
        threshold: of the nodule image.

    Returns:
        The findings in their order, with boxes that hold their new outlines.
    """
    kept = sorted(number for finding in findings for number in finding.labels)
    widened = {}
    for finding in findings:
        if finding not in views:
            continue
        box, image = views[finding].box, views[finding].image
        old = np.isin(labels[box], finding.labels)
        others = np.isin(labels[box], kept) & ~old
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
