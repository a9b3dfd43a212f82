"""How findings are written in the table, in tool tips and on the clipboard."""

import math

from LNHGLib.measurement.score_scale import MODEL, PROBABILITY
from LNHGLib.models.card import FrocSpec
from LNHGLib.segmentation import calibration
from slicer.i18n import tr as _

from LNHGSegmentationLib.Findings.Findings import SCORES, isAdded, isEdited

UNKNOWN = "-"
KEYS = ("number", "name", "score", "foundBy", "place", "size", "volume", "hu", "type", "heterogeneity")
"""What the columns of the table hold, from left to right."""


def columns(scale: str = MODEL) -> list[str]:
    """Return the names of the columns.

    Args:
        scale: What the scores mean, see `LNHGLib.measurement.score_scale`.
    """
    size, volume = _("Size (mm)"), _("Volume (mm³)")
    score = _("Probability") if scale == PROBABILITY else _("Score")
    return [
        *(_("No."), _("Name"), score, _("Found by"), _("Place")),
        *(size, volume, _("Mean HU"), _("Type"), _("Heterogeneity")),
    ]


def headers(scale: str = MODEL) -> list[str]:
    """Return the names of the columns as the narrow table has room for them.

    Args:
        scale: What the scores mean.
    """
    short = {"volume": _("Vol. (mm³)"), **({"score": _("Prob.")} if scale == PROBABILITY else {})}
    return [short.get(key, name) for key, name in zip(KEYS, columns(scale), strict=True)]


def scoreHelp(scale: str) -> str:
    """Say in a sentence what the scores mean.

    Args:
        scale: What they mean.
    """
    if scale == PROBABILITY:
        return _("Probability that the finding is a nodule as readers mark them; it says nothing of malignancy.")
    return _("Score on the model's own scale from 0 to 1; it is not a probability.")


def expectation(froc: dict | None, threshold: float) -> str:
    """Say what findings from a score on gave on scans with known nodules; empty where the model's card says nothing.

    Args:
        froc: The card's part `froc`, None where it has none.
        threshold: Lowest score of the findings shown.
    """
    if froc is None:
        return ""
    known = FrocSpec.of(froc)
    expected = calibration.expectation(known, threshold)
    false = number(expected.false_per_scan, 1)
    if threshold < known.thresholds[-1]:
        false = _("{count} or more").format(count=false)  # nobody counted below the lowest threshold
    scans = _("1\N{NO-BREAK SPACE}scan") if known.scans == 1 else _("{count}\N{NO-BREAK SPACE}scans")
    scans = scans.format(count=known.scans)
    return _("About {found} of {nodules} nodules found, {false} false per scan ({scans})").format(
        found=expected.found, nodules=known.nodules, false=false, scans=scans
    )


def expectationHelp(froc: dict | None) -> str:
    """Say what `expectation` rests on.

    Args:
        froc: The card's part `froc`, None where it has none.
    """
    text = _("Counted on {source}. Your scan may be easier or harder.")
    return text.format(source=froc["rests_on"]) if froc else ""


def cells(row: dict, scoreDecimals: int = 2, isNarrow: bool = False) -> list[str]:
    """Return a finding's texts, one per column.

    Args:
        row: The finding.
        scoreDecimals: Of its score.
        isNarrow: Whether the texts are as short as the narrow table has room for.
    """
    sides = {"left": _("L"), "right": _("R")} if isNarrow else {"left": _("left"), "right": _("right")}
    place = sides.get(row.get("side"), UNKNOWN)
    if row.get("slice"):
        place = f"{place} {row['slice']}" if isNarrow else f"{place}, {row['slice']}"
    texts = [str(row["number"]), row["name"], number(row["score"], scoreDecimals), provenance(row), place]
    measured, signal = row["measurement"], row["heterogeneity"]
    if measured is None:
        return [*texts, *[UNKNOWN] * 5]
    return [
        *texts,
        f"{measured['long_axis_mm']:.1f} x {measured['short_axis_mm']:.1f}",
        number(measured["volume_mm3"], 0),
        number(measured["mean_hu"], 0),
        measured["attenuation"],
        UNKNOWN if signal is None else f"{signal['mean']:.2f} ± {signal['sd']:.2f}",
    ]


def decimals(score: float) -> int:
    """Return how many decimals tell a least score as it is: two to four."""
    return max(2, len(f"{score:.4f}".rstrip("0").partition(".")[2]))


def leastScore(score: float) -> str:
    """Return a least score with all its decimals."""
    return number(score, decimals(score))


def roundedDown(score: float, digits: int) -> float:
    """Return the largest number of so many decimals that is no larger than a score.

    Args:
        score: The score.
        digits: Number of decimals.
    """
    return math.floor(score * 10**digits + 1e-6) / 10**digits


def sortKeys(row: dict) -> list[tuple]:
    """Return what each column is sorted by; findings without a value come last."""
    measured, signal = row["measurement"] or {}, row["heterogeneity"] or {}
    values = [
        *(row["number"], row["name"].casefold(), row["score"], provenance(row)),
        (row["side"] or "", row["slice"] or 0),
        *(measured.get(key) for key in ("long_axis_mm", "volume_mm3", "mean_hu", "attenuation")),
        signal.get("sd"),
    ]
    return [(value is None, value) if value is not None else (True,) for value in values]


def provenance(row: dict) -> str:
    """Return who made a finding, and who changed it."""
    names = {"fused": _("fused"), "segmenter": _("segmenter"), "detector-box": _("detector box")}
    text = names.get(row["provenance"], _("drawn by hand"))
    if isAdded(row) and row["provenance"] in names:
        text = _("{model}, added").format(model=text)
    return _("{text}, edited").format(text=text) if isEdited(row) else text


def number(value: float | None, digits: int) -> str:
    """Return a number, or a dash where it is not known.

    Args:
        value: The number.
        digits: Of its decimals.
    """
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def toolTip(row: dict) -> str:
    """Return what the table has no room for: who made the finding, what was done to it, its statistics."""
    origins = {
        "fused": _("found by the segmenter and the detector"),
        "segmenter": _("found by the segmenter alone"),
        "detector-box": _("found by the detector alone, which gives no outline"),
    }
    actions = {
        "added": _("added at a place shown by the reader, outlined by the model"),
        "drawn": _("added by the reader"),
        "confirmed": _("confirmed by the reader"),
        "edited": _("edited by the reader"),
        "merged": _("merged by the reader from {numbers}"),
        "split": _("split by the reader"),
        "restored": _("restored to the model's output"),
    }
    lines = [f"{row['name']}: {origins.get(row['provenance'], _('drawn by hand'))}"]
    for each in row["history"]:
        if each["action"] != "found":
            text = actions.get(each["action"], each["action"])
            text = text.format(numbers=", ".join(map(str, each.get("numbers", []))))
            lines.append(f"{each['time'] or ''} {text}".strip())
    branches = (_("segmenter"), _("detector"), _("classifier"))
    scores = [f"{name} {row[key]:.2f}" for name, key in zip(branches, SCORES, strict=True) if row[key] is not None]
    if scores:
        lines.append(_("scores: {parts}").format(parts=", ".join(scores)))
    if row["side"] or row["slice"]:
        lines.append(_("{side} lung, slice {slice}").format(side=row["side"] or UNKNOWN, slice=row["slice"] or UNKNOWN))
    names = {
        "mean": _("mean signal"),
        "sd": _("standard deviation"),
        "entropy_bits": _("entropy (bits)"),
        "p10_p90_range": _("10th to 90th percentile"),
        "gradient_per_mm": _("gradient (per mm)"),
        "edge_to_core": _("edge to core"),
    }
    lines += [f"{names.get(key, key)}: {number(value, 3)}" for key, value in (row["heterogeneity"] or {}).items()]
    return "\n".join(lines)


def clipboard(rows: list[dict], scoreDecimals: int = 2, scale: str = MODEL) -> str:
    """Return findings as tab-separated text with a line of headers, as spreadsheets take it.

    Args:
        rows: Of the findings.
        scoreDecimals: Of their scores.
        scale: What their scores mean.
    """
    names = columns(scale)
    lines = [[names[0], _("Kept"), *names[1:]]]
    for row in rows:
        first, *others = cells(row, scoreDecimals)
        lines.append([first, _("yes") if row["kept"] else _("no"), *others])
    return "\n".join("\t".join(text.replace("\t", " ") for text in line) for line in lines) + "\n"
