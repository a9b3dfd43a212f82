"""One predictor of nodule images: a model's networks with their test-time augmentation, and the mean of them all.

The first member, the card's `generator`, looks over the lungs: what it marks are the candidates. At each of them all
members predict, and their mean gives the candidate its score and its outline. Further members are the generator on the
CT rotated by 180 degrees in the axial plane (`rotate_180` in the card) and the `second_generator`. Arrays are zyx on
the working grid; the CT is normalized to 0..1.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage
from torch import nn

from LNHGLib.image.boxes import Box, box_start, box_union, grow_box
from LNHGLib.models.card import Card, FusionOptions, GeneratorSpec
from LNHGLib.segmentation.components import component_scores, components
from LNHGLib.segmentation.fusion import Finding, combine
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.tiled_inference import run_generator

Predict = Callable[..., np.ndarray]
"""A member: normalized CT float32 (z, y, x) -> nodule image float32 (z, y, x)."""

PAPER_SLAB = 3
MARGIN = 16
"""Voxels around a candidate that the members see."""
RIM = 4
"""Voxels at the border of what they see; an outline that grows into them is not held there, and the first one stays."""


@dataclass(frozen=True, eq=False)
class EnsemblePatch:
    """What all members together made of a candidate's surroundings.

    Attributes:
        box: of the working grid.
        image: mean nodule image there, float32 (z, y, x).
    """

    box: Box
    image: np.ndarray


class Ensemble:
    """The members of a model. One that is made for a single network is that network's predictor."""

    def __init__(self, first: Predict, others: Sequence[Predict] = (), monitor: Monitor | None = None) -> None:
        """Join members.

        Args:
            first: finds the candidates; may take the lungs (bool (z, y, x)) as its second argument.
            others: look at the candidates with it.
            monitor: told how many of the candidates are done.
        """
        self.first, self.others, self.monitor = first, tuple(others), monitor or Monitor()

    @classmethod
    def of(
        cls, spec: Card, generator: nn.Module, second: nn.Module | None = None, monitor: Monitor | None = None
    ) -> "Ensemble":
        """Make the ensemble that a model's card describes.

        Args:
            spec: the card.
            generator: its generator, on the device it is to run on.
            second: its second generator, where it has one.
            monitor: progress and cancelling; the further members report no progress.
        """
        monitor = monitor or Monitor()
        silent = replace(monitor, progress=None)
        others = [rotated_180(member(generator, spec.generator, silent))] if spec.generator.rotate_180 else []
        if second is not None:
            others.append(member(second, spec.second_generator or spec.generator, silent))
        return cls(member(generator, spec.generator, monitor), others, monitor)

    def predict(self, ct_norm: np.ndarray, lungs: np.ndarray | None = None) -> np.ndarray:
        """Return the first member's nodule image.

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            lungs: bool (z, y, x); nothing is predicted in pieces without lung. None means everywhere.
        """
        return self.first(ct_norm) if lungs is None else self.first(ct_norm, lungs)

    def predict_mean(self, ct_norm: np.ndarray, image: np.ndarray | None = None) -> np.ndarray:
        """Return the mean of all members' nodule images.

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            image: the first member's, where it is there already.
        """
        start = self.first(ct_norm) if image is None else image
        return sum((other(ct_norm) for other in self.others), start=start) / (1 + len(self.others))

    def predict_at(self, ct_norm: np.ndarray, image: np.ndarray, boxes: Sequence[Box]) -> Iterator[EnsemblePatch]:
        """Yield what all members make of the surroundings of each box.

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            image: the first member's nodule image of it.
            boxes: of candidates.
        """
        for done, box in enumerate(boxes):
            self.monitor.report(done / len(boxes))
            field = grow_box(box, MARGIN, ct_norm.shape)
            yield EnsemblePatch(field, self.predict_mean(ct_norm[field], image[field]))


def member(network: nn.Module, spec: GeneratorSpec, monitor: Monitor | None = None) -> Predict:
    """Return a network as a member of an ensemble.

    Args:
        network: on the device it is to run on.
        spec: the card's part on it.
        monitor: progress and cancelling.
    """
    slab = spec.slab or (PAPER_SLAB if spec.kind == "paper" else None)
    return partial(run_generator, network, slab=slab, monitor=monitor)


def rotated_180(predict: Predict) -> Predict:
    """Rotate the CT by 180 degrees in the axial plane, predict, rotate back.

    Args:
        predict: the member to augment.
    """
    return lambda ct_norm: predict(np.ascontiguousarray(ct_norm[:, ::-1, ::-1]))[:, ::-1, ::-1]


def rescore_with_ensemble(
    ct_norm: np.ndarray,
    image: np.ndarray,
    labels: np.ndarray,
    findings: Sequence[Finding],
    ensemble: Ensemble,
    options: FusionOptions,
) -> dict[Finding, EnsemblePatch]:
    """Give findings the scores of all members.

    Args:
        ct_norm: normalized CT, float32 (z, y, x).
        image: the first member's nodule image, float32 (z, y, x).
        labels: component numbers, int (z, y, x).
        findings: with components.
        ensemble: the members.
        options: the card's `fusion` part.

    Returns:
        The findings with their new scores, best first, and what the members made of them.
    """
    extents, rescored = ndimage.find_objects(labels), {}
    boxes = [box_union(extents[number - 1] for number in finding.labels) for finding in findings]
    for finding, patch in zip(findings, ensemble.predict_at(ct_norm, image, boxes), strict=True):
        rescored[rescore(finding, labels[patch.box], patch.image, ct_norm[patch.box], options)] = patch
    return dict(sorted(rescored.items(), key=lambda item: -item[0].score))


def rescore(
    finding: Finding, labels: np.ndarray, image: np.ndarray, ct_norm: np.ndarray, options: FusionOptions
) -> Finding:
    """Return a finding with the segmenter's score that an image gives to its components.

    Args:
        finding: with components.
        labels: component numbers around it, int (z, y, x).
        image: nodule image there, float32 (z, y, x).
        ct_norm: normalized CT there, float32 (z, y, x).
        options: the card's `fusion` part.
    """
    own = np.where(np.isin(labels, finding.labels), labels, 0)
    numbers = list(finding.labels)
    scores = component_scores(own, image, ct_norm)[numbers]
    segmenter = float(np.average(scores, weights=np.bincount(own.ravel())[numbers]))
    score = combine(segmenter, finding.detector_score, options.weight, options.floor)
    return replace(finding, segmenter_score=segmenter, score=score)


def refine_outlines(
    image: np.ndarray,
    labels: np.ndarray,
    findings: Sequence[Finding],
    patches: Mapping[Finding, EnsemblePatch],
    threshold: float,
) -> tuple[np.ndarray, np.ndarray, list[Finding]]:
    """Outline findings by the mean of all members; those without a patch stay as they are.

    Args:
        image: the first member's nodule image, float32 (z, y, x).
        labels: component numbers, int (z, y, x).
        findings: what is kept, best first.
        patches: from `rescore_with_ensemble`.
        threshold: cuts the mean image into an outline.

    Returns:
        The nodule image with the members' mean around each finding, component numbers with the new outlines (each has
        its finding's first number), and the findings with boxes that hold them.
    """
    image, labels, refined = image.copy(), labels.copy(), []
    kept = sorted(number for finding in findings for number in finding.labels)
    for finding in findings:
        patch = patches.get(finding)
        if patch is None:
            refined.append(finding)
            continue
        box = patch.box
        old = np.isin(labels[box], finding.labels)
        others = np.isin(labels[box], kept) & ~old
        numbers = components(patch.image > threshold)
        met = np.unique(numbers[old])
        new, inner = np.isin(numbers, met[met > 0]), np.zeros(old.shape, bool)
        inner[(slice(RIM, -RIM),) * 3] = True
        new &= (inner | old).all(where=new) & ~others
        if new.any():
            labels[box][old] = 0
            labels[box][new] = finding.labels[0]
            image[box][~others] = patch.image[~others]
            points = np.argwhere(new) + box_start(box)
            low, high = np.minimum(finding.box[:3], points.min(0)), np.maximum(finding.box[3:], points.max(0) + 1)
            finding = replace(finding, box=tuple(map(float, (*low, *high))))
        refined.append(finding)
    return image, labels, refined
