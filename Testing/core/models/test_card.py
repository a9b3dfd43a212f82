"""Whatever a key of a card holds, it is taken or refused in one short sentence that names the key."""

import copy
import json
import math
from pathlib import Path

import pytest
from LNHGLib.errors import InputError
from LNHGLib.models import card

CARD = {
    "schema": 1,
    "name": "tiny",
    "description": "",
    "licence": "Apache-2.0",
    "grid": {"kind": "spacing", "spacing_mm": [3.0, 3.0, 3.0]},
    "window_hu": [-1000.0, 400.0],
    "threshold": 0.3,
    "files": dict.fromkeys(("g.safetensors", "d.safetensors", "s.safetensors", "c.safetensors"), "0" * 64),
    "generator": {
        "kind": "unet",
        "weights": "g.safetensors",
        "threshold": 0.1,
        "rotate_180": True,
        "prune_attachments": False,
        "slab": 3,
        "width": 8,
        "planes": 2,
    },
    "second_generator": {"kind": "paper", "weights": "s.safetensors", "threshold": 0.1, "input_skip": True},
    "detector": {
        "backbone": "light",
        "weights": "d.safetensors",
        "slice_step_mm": 2,
        "min_score": 0.3,
        "width": 4,
        "anchors_px": [6, 10],
        "aspect_ratios": [1.0],
        "nms": 0.5,
        "rpn_nms": 0.5,
        "rpn_positive_iou": 0.5,
        "rpn_negative_iou": 0.5,
        "train_proposals": 100,
        "roi_samples": 100,
    },
    "fusion": {
        "overlap": "touch",
        "margin_mm": 3.5,
        "weight": 0.5,
        "floor": 0.1,
        "min_volume_mm3": 1.0,
        "connectivity": "3d",
        "keep": "all",
    },
    "masses": {"factor": 3, "threshold": 0.1, "min_diameter": 20},
    "classifier": {"kind": "residual", "width": 2, "weights": "c.safetensors"},
    "probability": {"intercept": -3.0, "segmenter": 0.5, "detector": 0.25, "classifier": 1.0, "log_diameter": 0.5},
    "froc": {
        "thresholds": [0.9, 0.1],
        "found": [2, 3],
        "false_per_scan": [0.0, 0.5],
        "nodules": 4,
        "scans": 2,
        "rests_on": "two scans",
    },
}
PATH = Path("model.json")
ABSURD = {
    "NaN": math.nan,
    "infinite": math.inf,
    "far below": -1e308,
    "far above": 1e308,
    "2**70": 2**70,
    "401 digits": 10**400,
}
ODD = [None, True, -1, 0, "", "x" * 5000, "a. B", "1", [], {}, [[]], {"": {}}, [1, "2", None]]
VALUES = (*ABSURD.values(), *ODD, *([number] * 3 for number in (math.nan, 10**400, 1e-300)))


def places(part, path=()):
    """Yield the ways to all values of a card, those of lists too."""
    for key in part if isinstance(part, dict) else range(len(part)):
        yield (*path, key)
        if isinstance(part[key], dict | list):
            yield from places(part[key], (*path, key))


def changed(place, value):
    content = copy.deepcopy(CARD)
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return content


def value_at(place):
    part = CARD
    for key in place:
        part = part[key]
    return part


def refusal(content) -> str:
    """What is said of a card; empty where it is taken."""
    try:
        card.check(content, PATH)
        card.Card.of(content)
    except InputError as error:
        return str(error)
    return ""


def test_the_card_is_right_and_holds_every_key():
    assert refusal(CARD) == ""
    assert CARD.keys() >= {name for name, key in card.CARD.items() if key.required}
    for part, keys in card.PARTS.items():
        assert CARD[part].keys() == keys.keys()


@pytest.mark.parametrize("place", list(places(CARD)), ids=lambda place: ".".join(map(str, place)))
def test_any_value_is_taken_or_refused_in_one_short_sentence(place):
    for value in VALUES:
        said = refusal(changed(place, value))
        assert len(said) <= 300
        assert not said or (said.endswith(".") and ";" in said and "\n" not in said)


NUMBERS = [
    place for place in places(CARD)
    if type(value_at(place)) in (int, float) and place != ("schema",)
]  # fmt: skip


@pytest.mark.parametrize("number", ABSURD)
@pytest.mark.parametrize("place", NUMBERS, ids=lambda place: ".".join(map(str, place)))
def test_a_number_that_none_can_be_is_refused_by_the_name_of_its_key(place, number):
    key = ".".join(name for name in place if isinstance(name, str))
    assert f"'{key}' is " in refusal(changed(place, ABSURD[number]))


@pytest.mark.parametrize("spacing", [1e-300, 0.01, 100.0, -1.0])
def test_a_spacing_that_no_memory_holds_is_refused(spacing):
    assert "'grid.spacing_mm' is " in refusal(changed(("grid", "spacing_mm"), [1.0, spacing, 1.0]))


@pytest.mark.parametrize("part", [(), ("generator",), ("detector",), ("classifier",), ("froc",)])
@pytest.mark.parametrize("key", ["k" * 300, "k. K", "\u0000", "=1+1", "\u202e", "a\nb"])
def test_an_unknown_key_is_quoted_shortened_with_the_likeliest_ones(part, key):
    said = refusal(changed((*part, key), 1))
    assert "is unknown, expected one of " in said
    assert len(said) <= 220
    assert said.isprintable()


def test_a_misspelled_key_is_followed_by_the_one_that_was_meant():
    assert "'treshold' is unknown, expected one of threshold, " in refusal(changed(("treshold",), 1))
    assert "'detector.min_scores' is unknown, expected one of min_score, " in refusal(
        changed(("detector", "min_scores"), 1)
    )


def test_a_value_that_is_long_or_deep_is_quoted_shortened():
    for value in ("x" * 5000, ["y" * 50] * 50, {str(number): {"z": {"z": 1}} for number in range(50)}):
        said = refusal(changed(("threshold",), value))
        assert said.startswith("model.json: 'threshold' is ")
        assert len(said) <= 200
    assert "'name' is 'xx" in refusal(json.loads(json.dumps(changed(("name",), "x" * 101))))
