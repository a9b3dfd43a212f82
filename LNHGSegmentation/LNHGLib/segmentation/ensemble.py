"""One predictor of nodule images: a model's networks with their test-time augmentation, and the mean of them all.

The first member, the card's `generator`, looks over the lungs: what it marks are the candidates. Around each of them
all members predict a fixed field, and their mean gives the candidate its score and its outline. What a field shows does
not depend on where it was cut from: a place in a scan and the cube cut out there give the same image. So the pipeline,
the point prompt, calibration, evaluation and training predict at a place by one method, `Ensemble.predict_at`.

What is large is seen better from afar. So where the card has `masses`, the first member also looks at a coarser CT:
over the lungs, and around each large candidate. What it marks there joins the nodule image if it is large.

Further members are the generator on the CT rotated by 180 degrees in the axial plane (`rotate_180` in the card) and the
`second_generator`. Arrays are zyx on the working grid; the CT is normalized to 0..1.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from LNHGLib.image.boxes import (
    Box,
    box_between,
    box_intersection,
    box_of_edges,
    box_shape,
    box_start,
    box_union,
    box_within,
    grow_box,
    shift_box,
    whole_box,
)
from LNHGLib.models.card import Card, FusionOptions, MassSpec
from LNHGLib.segmentation.components import component_scores, components, mark_around
from LNHGLib.segmentation.fusion import Finding, combine
from LNHGLib.segmentation.preprocessing import coarser
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.runtime import Network, as_network
from LNHGLib.segmentation.tiled_inference import fields_at_once, run_generator, run_generator_on_fields

if TYPE_CHECKING:
    from torch import nn

FIELD = 48
"""Voxels along each axis that the members see around a place."""
ROOM = 8
"""Voxels around a box that its field has at least; the field of a box that needs more than `FIELD` grows."""
FIELD_STEP = 8
"""Sides of fields are multiples of it, so that most have the same shape and no network needs padding."""
HALF = 0.5
"""A mass ends where the CT has fallen to this part of what it is inside."""
RIM = 4
"""Voxels at the border of what they see; an outline that grows into them is not held there, and the first one stays."""
WORTH = 0.75
"""A middle part that is not smaller than this part of its field is not worth the risk of a second look."""
GROWTH = 4
"""Voxels by which an outline may grow beyond a candidate's box before more of the field is predicted."""


@dataclass(frozen=True, eq=False)
class EnsemblePatch:
    """What all members together made of a candidate's surroundings.

    Attributes:
        box: the part of the field that lies in the working grid, or what was asked for of it.
        image: mean nodule image there, float32 (z, y, x).
    """

    box: Box
    image: np.ndarray


@dataclass(frozen=True, eq=False)
class Member:
    """A network as a member of an ensemble.

    Attributes:
        network: a generator, on the device it is to run on.
        slab: slices of one input, where the network was trained on slabs.
        rotated: rotate the CT by 180 degrees in the axial plane, predict, rotate back.
    """

    network: "Network | nn.Module"
    slab: int | None = None
    rotated: bool = False

    @classmethod
    def of(cls, network: "Network | nn.Module", slab: int | None = None) -> "Member":
        """Return the member that a network is.

        Args:
            network: a generator, on the device it is to run on.
            slab: slices of one input; None takes the paper's for the paper's generator, any number for others.
        """
        return cls(network, slab or as_network(network).slab)

    def predict(
        self, ct_norm: np.ndarray, lungs: np.ndarray | None = None, monitor: Monitor | None = None
    ) -> np.ndarray:
        """Return the nodule image of a CT, float32 (z, y, x).

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            lungs: as `run_generator` takes them.
            monitor: progress and cancelling.
        """
        seen = None if lungs is None else self._turn(lungs)
        return self._turn(run_generator(self.network, self._turn(ct_norm), seen, slab=self.slab, monitor=monitor))

    def predict_fields(
        self, fields: np.ndarray, monitor: Monitor | None = None, wanted: Box | None = None
    ) -> np.ndarray:
        """Return the nodule images of fields, float32 (n, z, y, x).

        Args:
            fields: normalized CT of each, float32 (n, z, y, x).
            monitor: cancelling.
            wanted: the middle part of each field whose values count, as far from one end as from the other.
        """
        some = self._turn(fields)
        return self._turn(run_generator_on_fields(self.network, some, slab=self.slab, monitor=monitor, wanted=wanted))

    def _turn(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[..., ::-1, ::-1]) if self.rotated else array


class Ensemble:
    """The members of a model. One that is made for a single network is that network's predictor."""

    def __init__(
        self,
        members: Sequence[Member],
        monitor: Monitor | None = None,
        masses: MassSpec | None = None,
        threshold: float = 0.0,
        faint_below: float | None = None,
    ) -> None:
        """Join members.

        Args:
            members: the first one finds the candidates, all of them look at each.
            monitor: cancelling, and progress: of the first one over a CT, and of the candidates done.
            masses: how the first one looks at a coarser CT, too.
            threshold: cuts the mean image into outlines.
            faint_below: as `mark_around` takes it.
        """
        self.members, self.monitor = tuple(members), monitor or Monitor()
        self.masses, self.threshold, self.faint_below = masses, threshold, faint_below

    @classmethod
    def of(
        cls,
        spec: Card,
        generator: "Network | nn.Module",
        second: "Network | nn.Module | None" = None,
        monitor: Monitor | None = None,
    ) -> "Ensemble":
        """Make the ensemble that a model's card describes.

        Args:
            spec: the card.
            generator: its generator, on the device it is to run on.
            second: its second generator, where it has one.
            monitor: progress and cancelling.
        """
        members = [Member.of(generator, spec.generator.slab)]
        if spec.generator.rotate_180:
            members.append(replace(members[0], rotated=True))
        if second is not None:
            members.append(Member.of(second, (spec.second_generator or spec.generator).slab))
        return cls(members, monitor, spec.masses, spec.generator.threshold, spec.generator.faint_below)

    def predict(self, ct_norm: np.ndarray, lungs: np.ndarray | None = None) -> np.ndarray:
        """Return the first member's nodule image of a CT, float32 (z, y, x): where it marks something are candidates.

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            lungs: bool (z, y, x); nothing is predicted in pieces without lung. None means everywhere.
        """
        image = self.members[0].predict(ct_norm, lungs, self.monitor)
        return image if self.masses is None else np.maximum(image, self._masses(ct_norm, lungs))

    def predict_at(
        self, ct_norm: np.ndarray, boxes: Sequence[Box], *, outlines_alone: bool = False
    ) -> Iterator[EnsemblePatch]:
        """Yield what all members make of the field around each box, see `field_around`.

        Nothing outside of the field is seen; of a large candidate, at the coarser scale, nothing outside of the field
        there. Where fields reach beyond the CT, its outermost values go on.

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            boxes: of candidates, or of places.
            outlines_alone: give the middle of the field alone, where nothing marked in the box goes on into its rim.
        """
        silent, done = replace(self.monitor, progress=None), 0
        for fields in self._batches([field_around(box) for box in boxes]):
            self.monitor.report(done / len(boxes))
            asked, seen = boxes[done : done + len(fields)], np.stack([cut_field(ct_norm, field) for field in fields])
            large = [self.masses is not None and max(box_shape(box)) >= self.masses.min_diameter for box in asked]
            core = everything = whole_box(seen[0].shape)
            if outlines_alone and not any(large):
                core = middle_of_fields(asked, seen[0].shape)
            images = self._mean(seen, core, silent)
            inner = [box_within(box_within(box, field), core) for box, field in zip(asked, fields, strict=True)]
            further = [
                core != everything and reaches_rim(mark_around(image[core], box, self.threshold, self.faint_below), box)
                for image, box in zip(images, inner, strict=True)
            ]
            if any(further):
                images[further] = self._mean(seen[further], everything, silent)
            for number, (box, field) in enumerate(zip(asked, fields, strict=True)):
                shown = field if further[number] else shift_box(core, box_start(field))
                shown = box_intersection(shown, whole_box(ct_norm.shape))
                patch = EnsemblePatch(shown, images[number][box_within(shown, field)])
                if large[number]:
                    wide, masses = self._masses_around(ct_norm, box)
                    patch = replace(patch, image=np.maximum(patch.image, masses[box_within(shown, wide)]))
                yield patch
                done += 1
                self.monitor.report(done / len(boxes))

    def _mean(self, fields: np.ndarray, wanted: Box, monitor: Monitor) -> np.ndarray:
        """Return the mean of the members' images of fields, float32 (n, z, y, x)."""
        return sum(member.predict_fields(fields, monitor, wanted) for member in self.members) / len(self.members)

    def mass_at(self, ct_norm: np.ndarray, place: Sequence[int]) -> Box | None:
        """Return the box of the mass that a place lies in, seen at the coarser scale; None where there is none.

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            place: index (z, y, x).
        """
        if self.masses is None:
            return None
        wide, image = self._masses_around(ct_norm, tuple(slice(index, index + 1) for index in place))
        labels = components(image > 0)
        number = labels[tuple(index - part.start for index, part in zip(place, wide, strict=True))]
        if not number:
            return None
        box = ndimage.find_objects(labels)[number - 1]
        moved = (slice(a.start + b.start, a.stop + b.start) for a, b in zip(box, wide, strict=True))
        return box_intersection(tuple(moved), whole_box(ct_norm.shape))

    def _masses_around(self, ct_norm: np.ndarray, box: Box) -> tuple[Box, np.ndarray]:
        """Return the field of a box at the coarser scale, on the working grid, and `_masses` in it."""
        wide = field_around(box, self.masses.factor)
        return wide, self._masses(cut_field(ct_norm, wide))

    def _masses(self, ct_norm: np.ndarray, lungs: np.ndarray | None = None) -> np.ndarray:
        """Return what the first member marks at the coarser scale and is large, float32 (z, y, x); 0 elsewhere.

        Args:
            ct_norm: normalized CT, float32 (z, y, x).
            lungs: as in `predict`.
        """
        factor, threshold = self.masses.factor, self.masses.threshold
        seen, afar = None if lungs is None else coarser(lungs, factor) > 0, coarser(ct_norm, factor)
        marked = self.members[0].predict(afar, seen, replace(self.monitor, progress=None))
        inside = ndimage.maximum_filter(np.minimum(marked, afar), 3)
        labels = components(marked > threshold)
        voxels, least = np.bincount(labels.ravel()), math.pi / 6 * (self.masses.min_diameter / factor) ** 3
        image = np.zeros([size * factor for size in marked.shape], np.float32)
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            if voxels[number] >= least:
                around = grow_box(box, 1, marked.shape)
                fine, dense = (
                    ndimage.zoom(array[around], factor, order=1, mode="nearest", grid_mode=True)
                    for array in (marked, inside)
                )
                own = np.kron(labels[around] == number, np.ones((factor,) * 3, bool))
                pieces = components(fine > threshold)
                shown = np.isin(pieces, np.unique(pieces[own & (fine > threshold)]))
                place = tuple(slice(part.start * factor, part.stop * factor) for part in around)
                shown &= cut_field(ct_norm, place) >= HALF * dense
                image[place][shown] = np.maximum(image[place], fine)[shown]
        return image[whole_box(ct_norm.shape)]

    def _batches(self, fields: Sequence[Box]) -> Iterator[list[Box]]:
        """Yield fields of one shape that follow each other, at most as many as every member sees at once."""
        for shape, group in groupby(fields, box_shape):
            same = list(group)
            batch = min(fields_at_once(member.network, shape) for member in self.members)
            yield from (same[first : first + batch] for first in range(0, len(same), batch))

    def predict_center(self, ct_norm: np.ndarray) -> np.ndarray:
        """Return what all members make of the field around the middle of a cube, float32 (z, y, x); 0 outside of it.

        Args:
            ct_norm: normalized CT of the cube, float32 (z, y, x).
        """
        middle = tuple(slice(size // 2, size // 2 + 1) for size in ct_norm.shape)
        (patch,) = self.predict_at(ct_norm, [middle])
        image = np.zeros(ct_norm.shape, np.float32)
        image[patch.box] = patch.image
        return image


def middle_of_fields(boxes: Sequence[Box], shape: Sequence[int]) -> Box:
    """Return the part of the boxes' fields that holds the boxes, what their outlines may grow by, and a rim.

    Args:
        boxes: each in the middle of its field.
        shape: of the fields.
    """
    needed = np.max([box_shape(box) for box in boxes], axis=0) + 2 * (GROWTH + RIM) + 1
    cut = np.maximum((np.array(shape) - needed) // 2, 0)
    return box_between(cut, shape - cut) if needed.sum() < WORTH * sum(shape) else whole_box(shape)


def reaches_rim(marked: np.ndarray, box: Box) -> bool:
    """Tell whether what is marked in a box goes on into the rim, `RIM` voxels wide.

    Args:
        marked: bool (z, y, x).
        box: in it.
    """
    labels = components(marked)
    numbers = np.unique(labels[box])
    labels[(slice(RIM, -RIM),) * 3] = 0
    return bool(np.isin(labels[labels > 0], numbers).any())


def field_around(box: Box, factor: int = 1) -> Box:
    """Return the field that the members see around a box; it may reach beyond the array.

    Along each axis it has `FIELD` voxels, or what the box needs with `ROOM` on both sides, rounded up to a multiple of
    `FIELD_STEP`. The box's middle voxel, the later one of two, is the one behind the field's middle.

    Args:
        box: of a candidate or place.
        factor: of the scale that the field is seen at: so many voxels count as one.
    """
    field = []
    for part in box:
        needed = (part.stop - part.start) / factor + 2 * ROOM
        size = max(FIELD, math.ceil(needed / FIELD_STEP) * FIELD_STEP) * factor
        start = (part.start + part.stop) // 2 - size // 2
        field.append(slice(start, start + size))
    return tuple(field)


def cut_field(array: np.ndarray, field: Box) -> np.ndarray:
    """Return a copy of what lies in a field; beyond the array its outermost values go on.

    Args:
        array: (z, y, x).
        field: as from `field_around`.
    """
    sides = zip(field, array.shape, strict=True)
    return array[np.ix_(*(np.arange(part.start, part.stop).clip(0, size - 1) for part, size in sides))]


def rescore_with_ensemble(
    ct_norm: np.ndarray,
    labels: np.ndarray,
    findings: Sequence[Finding],
    ensemble: Ensemble,
    options: FusionOptions,
) -> dict[Finding, EnsemblePatch]:
    """Give findings the scores of all members.

    Args:
        ct_norm: normalized CT, float32 (z, y, x).
        labels: component numbers, int (z, y, x).
        findings: with components.
        ensemble: the members.
        options: the card's `fusion` part.

    Returns:
        The findings with their new scores, best first, and what the members made of them.
    """
    extents, rescored = ndimage.find_objects(labels), {}
    boxes = [box_union(extents[number - 1] for number in finding.labels) for finding in findings]
    for finding, patch in zip(findings, ensemble.predict_at(ct_norm, boxes, outlines_alone=True), strict=True):
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
    faint_below: float | None = None,
) -> tuple[np.ndarray, np.ndarray, list[Finding]]:
    """Outline findings by the mean of all members; those without a patch stay as they are.

    Args:
        image: the first member's nodule image, float32 (z, y, x); the members' mean is written into it.
        labels: component numbers, int (z, y, x).
        findings: what is kept, best first.
        patches: from `rescore_with_ensemble`.
        threshold: cuts the mean image into an outline.
        faint_below: as `mark_around` takes it.

    Returns:
        The nodule image with the members' mean around each finding, component numbers of these findings alone with the
        new outlines (each has its finding's first number), and the findings with boxes that hold them.
    """
    found, labels, refined = labels, np.zeros(labels.shape, labels.dtype), []  # zeros_like would touch all memory
    for finding in findings:
        box = box_of_edges(finding.box)
        own = np.isin(found[box], finding.labels)
        labels[box][own] = found[box][own]
    for finding in findings:
        patch = patches.get(finding)
        if patch is None:
            refined.append(finding)
            continue
        box = patch.box
        old = np.isin(labels[box], finding.labels)
        others = (labels[box] > 0) & ~old
        numbers = components(mark_around(patch.image, old, threshold, faint_below))
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
