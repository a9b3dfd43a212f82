"""Markdown from a summary: no number is typed by hand, the same tables go into `summary.md` and the model's README."""

from LNHGLib.files.text import markdown_table

INTERVAL_NOTE = "In brackets the 95 % confidence interval ({unit}-cluster bootstrap, {samples} samples, seed {seed})."

FEW_PATIENTS = 10
FEW_STEPS = 1000
"""A training of fewer steps is marked as barely one."""

NOT_MEASURED = {"value": None}
"""In the place of a metric with its interval."""


def in_steps(count: int) -> str:
    """Return the length of a training in words, marked where it is short.

    Args:
        count: its steps.
    """
    return f"{count:,} steps" + (" (barely trained)" if count < FEW_STEPS else "")


def render(summary: dict, level: int = 1) -> str:
    """Return the tables of one evaluation.

    Args:
        summary: As in `summary.json`.
        level: Of the first heading.
    """
    name = summary["model"]["name"]
    if summary["kind"] == "crops":
        title, groups = "Segmentation, location given", summary["groups"]
        whole, left_out = groups["all"], summary["without_reference"]
        body = (
            f"Mean Dice {interval(whole['dice_all'])} on {whole['nodules']} nodules of {whole['patients']} patients, "
            f"the readers' own leave-one-out {interval(whole['human_loo_dice'])} on the same nodules; mean over "
            f"patients {interval(whole['dice_per_patient'])}. Marked elsewhere in the lung of a cube: "
            f"{interval(summary.get('elsewhere', NOT_MEASURED), 2)}."
            + (f" Hit by slice: {interval(summary['hits_by_slice'])}." if "hits_by_slice" in summary else "")
            + (f" {left_out} crops without a consensus voxel are left out." if left_out else "")
            + f"\n\n{_who_table(name, whole)}\n{_group_table(groups)}"
        )
    else:
        title, body = "Whole scans, fully automatic", _scan_tables(summary)
    weights = ", ".join(f"{file} {sha}" for file, sha in sorted(summary["model"]["sha256"].items()))
    files = "".join(f", {file} (SHA-256 {sha[:16]})" for file, sha in summary["data"]["files"].items())
    few = " Intervals from so few patients are rough." if summary["patients"] < FEW_PATIENTS else ""
    versions = ", ".join(f"{package} {version}" for package, version in summary["versions"].items())
    return (
        f"{'#' * level} {title}: {name}\n\n{body}\n"
        f"{INTERVAL_NOTE.format(**summary['bootstrap'])}{few}\n\n"
        f"- Protocol: {summary['protocol']}\n"
        f"- Data: {summary['data']['name']}{files}\n"
        f"- Split: {summary['split']}\n"
        f"- Model: {name}, SHA-256: {weights}\n"
        f"- Versions: {versions}\n"
    )


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text; a dash where nothing was measured.

    Args:
        value: The number.
        digits: After the point.
    """
    return "-" if value is None else f"{value:.{digits}f}"


def interval(metric: dict, digits: int = 3) -> str:
    """Return a metric with its interval, such as `0.742 (0.721 to 0.760)`.

    Args:
        metric: With `value`, `low` and `high`.
        digits: After the point.
    """
    if metric["value"] is None:
        return "-"
    if metric["low"] is None:
        return number(metric["value"], digits)
    return f"{number(metric['value'], digits)} ({number(metric['low'], digits)} to {number(metric['high'], digits)})"


def _who_table(name: str, whole: dict) -> str:
    """Return one row for the model and one for the readers themselves on the same nodules."""
    header = ["who", "Dice a nodule, missed = 0", "Dice a nodule, found only", "Dice a patient, missed = 0",
              "Dice a patient, found only", "HD95, mm", "absolute volume error"]  # fmt: skip
    model = ["dice_all", "dice_found", "dice_per_patient", "dice_found_per_patient"]
    readers = ["human_loo_dice", None, "human_loo_dice_per_patient", None]
    rows = [
        [name, *(interval(whole[key]) for key in model), interval(whole["hd95_mm"], 2),
         interval(whole["absolute_volume_error"], 2)],
        ["readers, leave-one-out", *(interval(whole[key]) if key else "-" for key in readers), "-", "-"],
    ]  # fmt: skip
    return markdown_table(header, rows)


def _group_table(groups: dict) -> str:
    header = ["nodules", "n", "patients", "found", "share found", "Dice, missed = 0", "Dice, found only",
              "readers' Dice", "Dice minus readers", "HD95, mm", "volume error", "absolute volume error"]  # fmt: skip
    rows = [
        [
            name, g["nodules"], g["patients"], g["found"], interval(g["found_share"]), interval(g["dice_all"]),
            interval(g["dice_found"]), interval(g["human_loo_dice"]), interval(g["dice_minus_human"]),
            interval(g["hd95_mm"], 2), interval(g["volume_error"], 2), interval(g["absolute_volume_error"], 2),
        ]
        for name, g in groups.items()
    ]  # fmt: skip
    return markdown_table(header, rows)


def _scan_tables(summary: dict) -> str:
    """Return the tables of whole scans: one row for each case, one for each nodule, the groups, and detection."""
    point = summary["operating_point"]["consensus"]
    whole = summary["groups"].get("all")
    dice = f", mean Dice {interval(whole['dice_all'])} with missed nodules at 0" if whole else ""
    case_rows = [
        [c["case"], c["nodules"], c["found"], number(c["dice_all"]), number(c["scan_dice"]), c["false"], c["ignored"],
         number(c["seconds"], 0), number(c["peak_gib"], 1)]
        for c in summary["cases"]
    ]  # fmt: skip
    nodule_rows = [
        [n["case"], n["nodule"], n["readers"], number(n["diameter_mm"], 1),
         ("yes" if n["found"] else "no") if n["counts"] else "does not count",
         number(n["dice"]) if n["counts"] else "-", number(n["human_loo_dice"]), number(n["hd95_mm"], 1),
         number(n["volume_error"], 2)]
        for n in summary.get("nodules", [])
    ]  # fmt: skip
    case_header = ["case", "nodules", "found", "mean Dice, missed = 0", "whole-scan Dice", "false", "ignored",
                   "seconds", "peak memory, GiB"]  # fmt: skip
    nodule_header = ["case", "nodule", "readers", "diameter, mm", "found", "Dice", "readers' leave-one-out Dice",
                     "HD95, mm", "volume error"]  # fmt: skip
    tables = [
        f"Found {point['hits']} of {point['nodules']} nodules on {point['scans']} scans{dice}; whole-scan Dice "
        f"{interval(summary['scan_dice'])}; {interval(point['false_per_scan'], 2)} false findings a scan (most on one "
        f"scan: {point['false_worst_scan']}) at the model's threshold {summary['threshold']:g}.\n",
        markdown_table(case_header, case_rows),
    ]
    if nodule_rows:
        tables.append(markdown_table(nodule_header, nodule_rows))
    if whole:
        tables += [_who_table(summary["model"]["name"], whole), _group_table(summary["groups"])]
    tables.append(_detection_table(summary))
    if whole:  # precision is not split: a false finding belongs to no group
        rows = [
            [name, group["nodules"], interval(group["cpm"])] for name, group in summary["detection_by_group"].items()
        ]
        tables.append(markdown_table(["nodules", "n", "CPM, LUNA16-like, false findings of all scans"], rows))
    return "\n".join(tables)


def _detection_table(summary: dict) -> str:
    """Return the rates of both hit rules side by side."""
    keys = ("consensus", "luna16_like")
    points, curves = ([summary[part][key] for key in keys] for part in ("operating_point", "froc"))
    rows = [
        ["recall (sensitivity) at the model's threshold", *(interval(point["sensitivity"]) for point in points)],
        ["precision at the model's threshold", *(interval(point["precision"]) for point in points)],
        ["F1 at the model's threshold", *(interval(point["f1"]) for point in points)],
        ["false findings a scan at the model's threshold", *(interval(point["false_per_scan"], 2) for point in points)],
        *([f"sensitivity at {rate} false a scan", *(interval(curve["sensitivity_at"][rate]) for curve in curves)]
          for rate in curves[0]["sensitivity_at"]),
        ["mean of these sensitivities (CPM)", *(interval(curve["cpm"]) for curve in curves)],
    ]  # fmt: skip
    header = ["detection", "segmentation, centroid in the consensus", "LUNA16-like, center within radius"]
    return markdown_table(header, rows)
