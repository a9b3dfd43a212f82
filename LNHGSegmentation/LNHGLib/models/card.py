"""The card of a model, `model.json`: what each key may be, and the card as typed values. Imports no torch.

A key that is unknown, missing or out of its range is refused in one sentence that names it: a misspelled key would
silently run another model. The parts `training`, `calibration` and `results` tell how the model came about; nothing is
computed from them, and they may hold anything.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from LNHGLib.errors import InputError

SCHEMA = 1
SECOND = "second_generator"
"""The part on a generator that looks at what the first one found (see `ensemble`); a model may have none."""
GENERATOR_OPTIONS: dict[str, tuple[str, ...]] = {
    "paper": ("width", "input_skip"),
    "strided": ("width", "input_skip"),
    "unet": ("width", "planes"),
    "gated-unet": ("width", "planes"),
}
"""Keys that build each kind of generator, as its class names them in `options`; other kinds are the training's."""
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
    """

    overlap: str = "touch"
    margin_mm: float = 3.5
    weight: float = 0.5
    floor: float = 0.1
    min_volume_mm3: float = 0.0
    connectivity: str = "3d"

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
    slab: int | None = None
    options: Mapping[str, Any] | None = None


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
class Card:
    """A checked card.

    Attributes:
        threshold: lowest score of a finding that is shown.
        window_hu: HU that become 0 and 1.
        grid: what the networks work on.
        generator: finds and outlines nodules.
        second_generator: looks at what the first one found; None where the model has none.
        detector: removes false positives.
        fusion: how both branches are joined.
    """

    threshold: float
    window_hu: tuple[float, float]
    grid: GridSpec
    generator: GeneratorSpec
    second_generator: GeneratorSpec | None
    detector: DetectorSpec
    fusion: FusionOptions

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Card":
        """Turn a card that `check` accepts into typed values.

        Args:
            values: content of `model.json`.
        """
        grid, detector = values["grid"], values["detector"]
        return cls(
            threshold=values["threshold"],
            window_hu=tuple(values["window_hu"]),
            grid=GridSpec(**{**grid, **({"spacing_mm": tuple(grid["spacing_mm"])} if "spacing_mm" in grid else {})}),
            generator=_generator(values["generator"]),
            second_generator=_generator(values[SECOND]) if SECOND in values else None,
            detector=DetectorSpec(**{field.name: detector[field.name] for field in fields(DetectorSpec)}),
            fusion=FusionOptions(**values["fusion"]),
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
            f"{path}: 'schema' is {values.get('schema')!r}, expected {SCHEMA}; "
            "use the LNHG version made for this model."
        )
    try:
        _check(values, CARD, "")
        _check(values["grid"], GRIDS[values["grid"]["kind"]], "grid.")
        for part in ("generator", *([SECOND] if SECOND in values else [])):
            _check_generator(values[part], part)
        _check(values["detector"], DETECTOR, "detector.")
        _check(values["fusion"], FUSION, "fusion.")
        for part in ("generator", "detector", *([SECOND] if SECOND in values else [])):
            if values[part]["weights"] not in values["files"]:
                name = values[part]["weights"]
                raise InputError(f"'files' lacks {name!r}, expected its SHA-256; mend the model card.")
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
            raise InputError(f"'{where}{name}' is unknown, expected one of {', '.join(keys)}; mend the model card.")
    for name, key in keys.items():
        if name not in values and not key.required:
            continue
        if name not in values or not key.accepts(values[name]):
            met = json.dumps(values[name], default=str)[:60] if values.get(name) is not None else "missing"
            raise InputError(f"'{where}{name}' is {met}, expected {key.expected}; mend the model card.")


def _check_generator(values: Mapping[str, Any], part: str) -> None:
    """Check a generator's part.

    Options of other kinds are let through, as older cards hold some; they build nothing. What builds a kind that only
    the training knows is left to the training.
    """
    known = GENERATOR | OPTIONS
    if isinstance(values.get("kind"), str) and values["kind"] not in GENERATOR_OPTIONS:
        known |= {name: ANYTHING for name in values if name not in GENERATOR}
    _check(values, known if part != SECOND else known | {"threshold": NUMBER_FROM_0}, f"{part}.")


def _generator(values: Mapping[str, Any]) -> GeneratorSpec:
    own = {field.name for field in fields(GeneratorSpec)}
    named = {OLD_KEYS.get(name, name): value for name, value in values.items()}
    building = GENERATOR_OPTIONS.get(named["kind"], named)
    options = {name: value for name, value in named.items() if name not in own and name in building}
    return GeneratorSpec(**{name: value for name, value in named.items() if name in own}, options=options)


def is_number(value: Any) -> bool:
    """Return whether a value is a number and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


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
        lambda v: (type(v), v) in {(type(each), each) for each in values}, " or ".join(map(str, values)), required
    )


def _is_file_table(files: Any) -> bool:
    return isinstance(files, dict) and all(
        re.fullmatch(r"[\w.-]+", name) and isinstance(sha, str) and re.fullmatch(r"[0-9a-f]{64}", sha)
        for name, sha in files.items()
    )


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_number(v) and v > 0 for v in value)


def _is_window(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]


def _whole(expected: str, required: bool = True) -> Key:
    return Key(lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0, expected, required)


def _numbers(expected: str) -> Key:
    return Key(lambda v: isinstance(v, list) and bool(v) and all(is_number(n) and n > 0 for n in v), expected, False)


ANYTHING = Key(lambda _value: True, "anything", False)
FLAG = Key(lambda v: isinstance(v, bool), "true or false", False)
FRACTION = between(0, 1, "a score from 0 to 1")
NUMBER_FROM_0 = Key(lambda v: is_number(v) and v >= 0, "a number from 0 on", False)
PART = Key(lambda v: isinstance(v, dict), "a JSON object")
TEXT = Key(lambda v: isinstance(v, str) and bool(v), "text")
WEIGHTS = Key(
    lambda v: isinstance(v, str) and re.fullmatch(r"[\w-][\w.-]*\.safetensors", v) is not None,
    "a .safetensors file of this folder",
)
GRID_KINDS = '{"kind": "spacing", "spacing_mm": [z, y, x]} or {"kind": "fov", "size": 256}'
GRIDS = {
    "spacing": {"kind": TEXT, "spacing_mm": Key(_is_triple, GRID_KINDS)},
    "fov": {"kind": TEXT, "size": _whole(GRID_KINDS)},
}
CARD = {
    "schema": ANYTHING,
    "name": Key(
        lambda v: isinstance(v, str) and bool(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", v)), "a name like lnhg-1mm"
    ),
    "description": Key(lambda v: isinstance(v, str), "text"),
    "licence": Key(TEXT.accepts, "the license's name"),
    "grid": Key(lambda v: isinstance(v, dict) and v.get("kind") in GRIDS, GRID_KINDS),
    "window_hu": Key(_is_window, "[low, high] in HU"),
    "threshold": FRACTION,
    "files": Key(_is_file_table, "file names with their SHA-256 in hex"),
    "fusion": Key(PART.accepts, "the fusion options"),
    "generator": Key(PART.accepts, "the generator's description"),
    "detector": Key(PART.accepts, "the detector's description"),
    SECOND: Key(PART.accepts, "the second generator's description", False),
    "training": Key(PART.accepts, PART.expected, False),
    "calibration": Key(PART.accepts, PART.expected, False),
    "results": Key(PART.accepts, PART.expected, False),
}
GENERATOR = {
    "kind": TEXT,
    "weights": WEIGHTS,
    "threshold": Key(NUMBER_FROM_0.accepts, NUMBER_FROM_0.expected),
    "rotate_180": FLAG,
    "half_turn": FLAG,
    "trim": FLAG,
    "prune_attachments": FLAG,
    "slab": _whole("slices from 1 on", required=False),
}
OPTIONS = {
    "width": _whole("channels from 1 on", required=False),
    "input_skip": FLAG,
    "planes": one_of(1, 2, 3, required=False),
}
DETECTOR = {
    "backbone": TEXT,
    "weights": WEIGHTS,
    "slice_step_mm": Key(lambda v: is_number(v) and v > 0, "millimeters above 0"),
    "min_score": FRACTION,
    "width": OPTIONS["width"],
    "anchors_px": _numbers("pixels above 0"),
    "aspect_ratios": _numbers("ratios above 0"),
    "nms": between(0, 1, "an overlap from 0 to 1", required=False),
    "rpn_nms": between(0, 1, "an overlap from 0 to 1", required=False),
    "rpn_positive_iou": between(0, 1, "an overlap from 0 to 1", required=False),
    "rpn_negative_iou": between(0, 1, "an overlap from 0 to 1", required=False),
    "train_proposals": _whole("a number from 1 on", required=False),
    "roi_samples": _whole("a number from 1 on", required=False),
}
FUSION = {
    "overlap": one_of("touch", "strict", required=False),
    "margin_mm": between(0.0, 50.0, "0.0 to 50.0", required=False),
    "weight": between(0.0, 1.0, "0.0 to 1.0", required=False),
    "floor": between(0.0, 1.0, "0.0 to 1.0", required=False),
    "min_volume_mm3": between(0.0, 1e6, "0.0 to 1000000.0", required=False),
    "connectivity": one_of("3d", "slice", required=False),
}
