"""The card of a model, `model.json`: what each key may be, and the card as typed values. Imports no torch.

A key that is unknown, missing or out of its range is refused in one sentence that names it: a misspelled key would
silently run another model. The parts `training`, `calibration` and `results` tell how the model came about; nothing is
computed from them, and they may hold anything.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from LNHGLib.errors import InputError, nearest, quoted, shown

SCHEMA = 1
SECOND = "second_generator"
"""The part on a generator that looks at what the first one found (see `ensemble`); a model may have none."""
GENERATOR_OPTIONS: dict[str, tuple[str, ...]] = {
    "paper": ("width", "input_skip"),
    "strided": ("width", "input_skip"),
    "unet": ("width", "planes"),
    "gated-unet": ("width", "planes"),
    "unet-2d": ("width",),
    "inception-unet": ("width",),
    "nasnet-gcn": ("width",),
    "nodulenet": ("width",),
    "monai-unet": ("width",),
    "nnunet": ("plan",),
}
"""Keys that build each kind of generator, as its class names them in `options`."""
CLASSIFIER_KINDS = ("residual", "resnet-48", "mgi-cnn")
OLD_KEYS = {"half_turn": "rotate_180", "trim": "prune_attachments"}
"""Keys of older cards, and what they are called today."""


@dataclass(frozen=True)
class FusionOptions:
    """The card's `fusion` part.

    Attributes:
        overlap: "touch" (faithful) or "strict".
        margin_mm: enlargement of every box to each side in the slice; the paper's 5 px of a 0.7 mm pixel.
        weight: the detector's part of a score in 0..1; the segmenter has the rest.
        floor: the score that stands for a branch that found nothing there.
        min_volume_mm3: smaller components are noise and do not take part.
        connectivity: "3d" (26 neighbors) or "slice" (8 neighbors in each slice, the paper's slice-wise filter).
        keep: "candidates" (the paper: components at the detector's candidates alone) or "all" components.
    """

    overlap: str = "touch"
    margin_mm: float = 3.5
    weight: float = 0.5
    floor: float = 0.1
    min_volume_mm3: float = 0.0
    connectivity: str = "3d"
    keep: str = "candidates"

    @classmethod
    def from_card(cls, values: Mapping[str, Any]) -> "FusionOptions":
        """Check the card's `fusion` part.

        Args:
            values: the part.

        Raises:
            InputError: naming the key that is unknown or out of its range.
        """
        _check(values, FUSION, "fusion.")
        return cls(**values)


@dataclass(frozen=True)
class GridSpec:
    """The card's `grid` part: the grid that the networks work on.

    Attributes:
        kind: "spacing" (along LPS around the lungs) or "fov" (the paper's: each native slice on size x size pixels).
        spacing_mm: z, y, x of kind "spacing".
        size: pixels of kind "fov".
    """

    kind: str
    spacing_mm: tuple[float, float, float] | None = None
    size: int | None = None


@dataclass(frozen=True)
class GeneratorSpec:
    """The card's part on a generator.

    Attributes:
        kind: one of `registry.KINDS`.
        weights: its safetensors file.
        threshold: cuts the nodule image into a mask; the second generator has none of its own.
        faint_below: signal of a finding below which its outline is cut lower, see `components.mark_around`.
        rotate_180: whether the CT rotated by 180 degrees in the axial plane is predicted as well.
        prune_attachments: whether vessels and walls are pruned from the outlines.
        slab: slices of one input, where the network was trained on slabs.
        options: what else builds the network.
    """

    kind: str
    weights: str
    threshold: float | None = None
    rotate_180: bool = False
    prune_attachments: bool = False
    faint_below: float | None = None
    slab: int | None = None
    options: Mapping[str, Any] | None = None

    @property
    def outlining(self) -> tuple[float | None, bool, float | None]:
        """How outlines are made of the nodule image: threshold, pruning and `faint_below`."""
        return self.threshold, self.prune_attachments, self.faint_below


@dataclass(frozen=True)
class DetectorSpec:
    """The card's part on the detector.

    Attributes:
        weights: its safetensors file.
        slice_step_mm: distance of the slices it sees.
        min_score: lowest score of a box that is kept.
    """

    weights: str
    slice_step_mm: float
    min_score: float


@dataclass(frozen=True)
class ClassifierSpec:
    """The card's part on the classifier, which sorts candidates before the ensemble outlines them.

    Attributes:
        kind: one of `CLASSIFIER_KINDS`.
        weights: its safetensors file.
        options: what else builds the network.
    """

    kind: str
    weights: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ClassifierSpec":
        """Return the part of a checked card."""
        own = {field.name for field in fields(cls)}
        options = {name: value for name, value in values.items() if name not in own}
        return cls(**{name: value for name, value in values.items() if name in own}, options=options)


@dataclass(frozen=True)
class MassSpec:
    """The card's `masses` part: the generator looks once more at a coarser CT, for what is too large for its own scale.

    Attributes:
        factor: voxels of the working grid along each axis that become one.
        threshold: cuts the coarser nodule image into components.
        min_diameter: of the sphere of a component's volume, in voxels of the working grid; smaller ones do not count.
    """

    factor: int
    threshold: float
    min_diameter: float


@dataclass(frozen=True)
class ProbabilitySpec:
    """The card's `probability` part: the logistic regression that makes a score a probability, see `calibration`.

    Attributes:
        intercept: log odds where all logits are 0 and the diameter is 1 mm.
        segmenter: factor of the logit of the segmenter's score.
        detector: factor of the logit of the detector's score.
        classifier: factor of the logit of the classifier's score.
        log_diameter: factor of the natural logarithm of the diameter in mm.
    """

    intercept: float
    segmenter: float
    detector: float
    classifier: float
    log_diameter: float


@dataclass(frozen=True)
class FrocSpec:
    """The card's `froc` part: what scans with known nodules gave at falling thresholds; one row at each.

    Attributes:
        thresholds: lowest score, falling.
        found: nodules found by findings of at least that score.
        false_per_scan: mean number of such findings that are no nodule.
        nodules: how many there were to be found.
        scans: how many scans that were.
        rests_on: the scans in words, and which networks looked at them.
    """

    thresholds: tuple[float, ...]
    found: tuple[int, ...]
    false_per_scan: tuple[float, ...]
    nodules: int
    scans: int
    rests_on: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "FrocSpec":
        """Turn a `froc` part that was checked into typed values.

        Args:
            values: the part.
        """
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class Card:
    """A checked card.

    Attributes:
        threshold: lowest score of a finding that is shown.
        window_hu: HU that become 0 and 1.
        grid: what the networks work on.
        generator: finds and outlines nodules.
        second_generator: looks at what the first one found; None where the model has none.
        detector: removes false positives; None where the model has none.
        fusion: how both branches are joined.
        masses: a coarser look for large nodules; None where there is none.
        classifier: sorts candidates; None where the model has none.
        probability: makes a score the probability that a finding is a nodule; None where scores are the model's own.
        froc: what to expect at each threshold; None where the card does not say it.
        bfloat16: whether it was measured that the networks find and outline the same in bfloat16.
    """

    threshold: float
    window_hu: tuple[float, float]
    grid: GridSpec
    generator: GeneratorSpec
    second_generator: GeneratorSpec | None
    detector: DetectorSpec | None
    fusion: FusionOptions
    masses: MassSpec | None = None
    classifier: ClassifierSpec | None = None
    probability: ProbabilitySpec | None = None
    froc: FrocSpec | None = None
    bfloat16: bool = False

    @property
    def two_stages(self) -> bool:
        """Whether a classifier alone decides on what the generator marks: nothing else could."""
        return self.detector is None and self.classifier is not None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Card":
        """Turn a card that `check` accepts into typed values.

        Args:
            values: content of `model.json`.
        """
        grid, detector = values["grid"], values.get("detector")
        return cls(
            threshold=values["threshold"],
            window_hu=tuple(values["window_hu"]),
            grid=GridSpec(**{**grid, **({"spacing_mm": tuple(grid["spacing_mm"])} if "spacing_mm" in grid else {})}),
            generator=_generator(values["generator"]),
            second_generator=_generator(values[SECOND]) if SECOND in values else None,
            detector=detector and DetectorSpec(**{each.name: detector[each.name] for each in fields(DetectorSpec)}),
            fusion=FusionOptions(**values["fusion"]),
            masses=MassSpec(**values["masses"]) if "masses" in values else None,
            classifier=ClassifierSpec.of(values["classifier"]) if "classifier" in values else None,
            probability=ProbabilitySpec(**values["probability"]) if "probability" in values else None,
            froc=FrocSpec.of(values["froc"]) if "froc" in values else None,
            bfloat16=values.get("bfloat16", False),
        )


@dataclass(frozen=True)
class Key:
    """What a key of the card may be: a check, its words, and whether it must be there."""

    accepts: Callable[[Any], bool]
    expected: str
    required: bool = True


def check(values: Any, path: Path) -> None:
    """Refuse a card that is not what this version of the program runs.

    Args:
        values: content of `model.json`.
        path: of the file, for the sentence.

    Raises:
        InputError: naming the key that is unknown, missing or out of its range.
    """
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}, expected a JSON object; take the model again.")
    if values.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: 'schema' is {quoted(values.get('schema'))}, expected {SCHEMA}; "
            "use the LNHG version made for this model."
        )
    try:
        _check(values, CARD, "")
        _check(values["grid"], GRIDS[values["grid"]["kind"]], "grid.")
        for part in ("generator", *([SECOND] if SECOND in values else [])):
            _check_generator(values[part], part)
        for part, keys in PARTS.items():
            if part in values:
                _check(values[part], keys, f"{part}.")
        _check_agreement(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check(values: Mapping[str, Any], keys: Mapping[str, Key], where: str) -> None:
    """Refuse unknown, missing and wrong keys of one part.

    Args:
        values: the part.
        keys: what it may hold.
        where: stands before a key in the sentence.
    """
    for name in values:
        if name not in keys:
            raise InputError(
                f"'{where}{shown(name)}' is unknown, expected one of {nearest(name, keys)}; mend the model card."
            )
    for name, key in keys.items():
        if name not in values and not key.required:
            continue
        if name not in values or not key.accepts(values[name]):
            met = quoted(values[name]) if values.get(name) is not None else "missing"
            raise InputError(f"'{where}{name}' is {met}, expected {key.expected}; mend the model card.")


def _check_generator(values: Mapping[str, Any], part: str) -> None:
    """Check a generator's part.

    Options of other kinds are let through, as older cards hold some; they build nothing.
    """
    known = GENERATOR | OPTIONS
    _check(values, known if part != SECOND else known | {"threshold": NUMBER_FROM_0}, f"{part}.")


def _check_agreement(values: Mapping[str, Any]) -> None:
    """Refuse parts that contradict each other: a table of false findings, the weight of no detector, unlisted files."""
    if "froc" in values:
        froc = values["froc"]
        for name in ("found", "false_per_scan"):
            if len(froc[name]) != len(froc["thresholds"]):
                raise InputError(
                    f"'froc.{name}' has {len(froc[name])} rows, expected one for each of the "
                    f"{len(froc['thresholds'])} of 'froc.thresholds'; mend the model card."
                )
        if froc["found"][-1] > froc["nodules"]:
            raise InputError(
                f"'froc.found' ends with {froc['found'][-1]}, expected at most the {froc['nodules']} of "
                "'froc.nodules'; mend the model card."
            )
    weight = values["fusion"].get("weight", FusionOptions.weight)
    if "detector" not in values and weight != 0:
        raise InputError(f"'fusion.weight' is {weight}, expected 0 in a card without a detector; mend the model card.")
    for part in (part for part in ("generator", "detector", SECOND, "classifier") if part in values):
        if values[part]["weights"] not in values["files"]:
            name = values[part]["weights"]
            raise InputError(f"'files' lacks {quoted(name)}, expected its SHA-256; mend the model card.")


def with_words_of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's part on a generator with today's keys in place of older ones."""
    return {OLD_KEYS.get(name, name): value for name, value in values.items()}


def _generator(values: Mapping[str, Any]) -> GeneratorSpec:
    own = {field.name for field in fields(GeneratorSpec)}
    named = with_words_of_today(values)
    building = GENERATOR_OPTIONS[named["kind"]]
    options = {name: value for name, value in named.items() if name not in own and name in building}
    return GeneratorSpec(**{name: value for name, value in named.items() if name in own}, options=options)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def between(low: float, high: float, expected: str, required: bool = True) -> Key:
    """Return a key for a number in a closed range.

    Args:
        low: least value.
        high: greatest value.
        expected: the range in words.
        required: whether the key must be there.
    """
    return Key(lambda v: is_number(v) and low <= v <= high, expected, required)


def one_of(*values: Any, required: bool = True) -> Key:
    """Return a key for one of some values.

    Args:
        values: what is allowed.
        required: whether the key must be there.
    """
    return Key(
        lambda v: any(type(v) is type(each) and v == each for each in values), " or ".join(map(str, values)), required
    )


def _is_file_table(files: Any) -> bool:
    return isinstance(files, dict) and all(
        re.fullmatch(r"[\w.-]{1,100}", name) and isinstance(sha, str) and re.fullmatch(r"[0-9a-f]{64}", sha)
        for name, sha in files.items()
    )


def _whole(most: int, expected: str, required: bool = True) -> Key:
    return Key(lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 < v <= most, expected, required)


def _numbers(most: float, expected: str) -> Key:
    return Key(
        lambda v: isinstance(v, list) and 0 < len(v) <= MANY and all(is_number(n) and 0 < n <= most for n in v),
        expected,
        False,
    )


def _is_rising(values: Any, strictly: bool = False) -> bool:
    """Return whether a value is a list of numbers from 0 on, each at least as large as the one before."""
    if not isinstance(values, list) or not values or not all(is_number(v) and 0 <= v <= LARGEST for v in values):
        return False
    return all(a < b if strictly else a <= b for a, b in pairwise(values))


LARGEST, MANY = 1e6, 64
"""Largest number of a table or a factor, and longest list of sizes: more is no description of a network."""
SPACING_MM = (0.2, 20.0)
"""Of the voxels that networks work on."""
HU = (-32768, 65535)
"""What a CT can hold."""
ANYTHING = Key(lambda _value: True, "anything", False)
FLAG = Key(lambda v: isinstance(v, bool), "true or false", False)
FRACTION = between(0, 1, "a score from 0 to 1")
FACTOR = between(-LARGEST, LARGEST, "a number")
FROM_0 = between(0, 1000, "a number from 0 to 1000")
NUMBER_FROM_0 = replace(FROM_0, required=False)
PART = Key(lambda v: isinstance(v, dict), "a JSON object")
TEXT = Key(lambda v: isinstance(v, str) and bool(v), "text")
WEIGHTS = Key(
    lambda v: isinstance(v, str) and re.fullmatch(r"[\w-][\w.-]{0,80}\.safetensors", v) is not None,
    "a .safetensors file of this folder",
)
GRID_KINDS = '{"kind": "spacing", "spacing_mm": [z, y, x]} or {"kind": "fov", "size": 256}'
GRIDS = {
    "spacing": {
        "kind": TEXT,
        "spacing_mm": Key(
            lambda v: isinstance(v, list) and len(v) == 3 and all(between(*SPACING_MM, "").accepts(mm) for mm in v),
            f"[z, y, x] from {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm",
        ),
    },
    "fov": {"kind": TEXT, "size": _whole(2048, "pixels from 1 to 2048")},
}
CARD = {
    "schema": ANYTHING,
    "name": Key(
        lambda v: isinstance(v, str) and bool(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", v)), "a name like lnhg-1mm"
    ),
    "description": Key(lambda v: isinstance(v, str), "text"),
    "licence": Key(TEXT.accepts, "the license's name"),
    "grid": Key(lambda v: isinstance(v, dict) and v.get("kind") in list(GRIDS), GRID_KINDS),
    "window_hu": Key(
        lambda v: isinstance(v, list) and len(v) == 2 and all(map(between(*HU, "").accepts, v)) and v[0] < v[1],
        "[low, high] in HU",
    ),
    "threshold": FRACTION,
    "files": Key(_is_file_table, "file names with their SHA-256 in hex"),
    "fusion": Key(PART.accepts, "the fusion options"),
    "generator": Key(PART.accepts, "the generator's description"),
    "detector": Key(PART.accepts, "the detector's description", False),
    SECOND: Key(PART.accepts, "the second generator's description", False),
    "masses": Key(PART.accepts, "the coarser look's options", False),
    "classifier": Key(PART.accepts, "the classifier's description", False),
    "probability": Key(PART.accepts, "the factors of a score that is a probability", False),
    "froc": Key(PART.accepts, "a table of nodules and false findings by threshold", False),
    "bfloat16": FLAG,
    "training": Key(PART.accepts, PART.expected, False),
    "calibration": Key(PART.accepts, PART.expected, False),
    "results": Key(PART.accepts, PART.expected, False),
}
GENERATOR = {
    "kind": one_of(*GENERATOR_OPTIONS),
    "weights": WEIGHTS,
    "threshold": FROM_0,
    "rotate_180": FLAG,
    "half_turn": FLAG,
    "trim": FLAG,
    "prune_attachments": FLAG,
    "faint_below": between(1e-3, 1, "a signal from 0.001 to 1", required=False),
    "slab": _whole(512, "slices from 1 to 512", required=False),
}
OPTIONS = {
    "width": _whole(4096, "channels from 1 to 4096", required=False),
    "input_skip": FLAG,
    "planes": one_of(1, 2, 3, required=False),
    "plan": Key(PART.accepts, "the plan of nnU-Net", False),
}
DETECTOR = {
    "backbone": TEXT,
    "weights": WEIGHTS,
    "slice_step_mm": between(0.1, 100, "0.1 to 100 mm"),
    "min_score": FRACTION,
    "width": OPTIONS["width"],
    "anchors_px": _numbers(4096, "pixels above 0"),
    "aspect_ratios": _numbers(100, "ratios above 0"),
    "nms": between(0, 1, "an overlap from 0 to 1", required=False),
    "rpn_nms": between(0, 1, "an overlap from 0 to 1", required=False),
    "rpn_positive_iou": between(0, 1, "an overlap from 0 to 1", required=False),
    "rpn_negative_iou": between(0, 1, "an overlap from 0 to 1", required=False),
    "train_proposals": _whole(10**6, "a number from 1 to a million", required=False),
    "roi_samples": _whole(10**6, "a number from 1 to a million", required=False),
}
FUSION = {
    "overlap": one_of("touch", "strict", required=False),
    "margin_mm": between(0.0, 50.0, "0.0 to 50.0", required=False),
    "weight": between(0.0, 1.0, "0.0 to 1.0", required=False),
    "floor": between(0.0, 1.0, "0.0 to 1.0", required=False),
    "min_volume_mm3": between(0.0, 1e6, "0.0 to 1000000.0", required=False),
    "connectivity": one_of("3d", "slice", required=False),
    "keep": one_of("candidates", "all", required=False),
}
CLASSIFIER = {
    "kind": one_of(*CLASSIFIER_KINDS),
    "width": OPTIONS["width"],
    "weights": WEIGHTS,
}
MASSES = {
    "factor": _whole(64, "voxels from 1 to 64"),
    "threshold": FROM_0,
    "min_diameter": between(1, 1000, "1 to 1000 voxels"),
}
PROBABILITY = {field.name: FACTOR for field in fields(ProbabilitySpec)}
FROC = {
    "thresholds": Key(
        lambda v: isinstance(v, list) and _is_rising(v[::-1], strictly=True) and v[0] <= 1, "falling scores from 1 to 0"
    ),
    "found": Key(lambda v: _is_rising(v) and all(isinstance(n, int) for n in v), "whole numbers that do not fall"),
    "false_per_scan": Key(_is_rising, "numbers from 0 on that do not fall"),
    "nodules": _whole(10**6, "a number from 1 to a million"),
    "scans": _whole(10**6, "a number from 1 to a million"),
    "rests_on": TEXT,
}
PARTS = {
    "detector": DETECTOR,
    "fusion": FUSION,
    "masses": MASSES,
    "classifier": CLASSIFIER,
    "probability": PROBABILITY,
    "froc": FROC,
}
"""Keys of the parts whose keys depend on nothing else."""
