"""Markdown from a summary: no figure is typed by hand, the same tables go into `summary.md` and the model's README."""

INTERVAL_NOTE = "In brackets the 95 % confidence interval ({unit}-cluster bootstrap, {samples} samples, seed {seed})."

FEW_PATIENTS = 10

NOT_MEASURED = {"value": None}
"""In the place of a figure with its interval."""


def render(summary: dict, level: int = 1) -> str:
    """The tables of one evaluation.

    Args:
        summary: As in `summary.json`.
        level: Of the first heading.
    """
    body = _crops(summary) if summary["kind"] == "crops" else _scans(summary)
    title = "Segmentation, location given" if summary["kind"] == "crops" else "Whole scans, fully automatic"
    return f"{'#' * level} {title}: {summary['model']['name']}\n\n{body}\n{_colophon(summary)}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure as text; a dash where nothing was measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def interval(figure: dict, digits: int = 3) -> str:
    """A figure with its interval, such as `0.742 (0.721 to 0.760)`."""
    if figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return number(figure["value"], digits)
    return f"{number(figure['value'], digits)} ({number(figure['low'], digits)} to {number(figure['high'], digits)})"


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _crops(summary: dict) -> str:
    groups = summary["groups"]
    whole = groups["all"]
    left_out = summary["without_reference"]
    return (
        f"Mean Dice {interval(whole['dice_all'])} on {whole['nodules']} nodules of {whole['patients']} patients, the "
        f"readers' own leave-one-out {interval(whole['human_loo_dice'])} on the same nodules; mean over patients "
        f"{interval(whole['dice_per_patient'])}. Marked elsewhere in the lung of a cube: "
        f"{interval(summary.get('elsewhere', NOT_MEASURED), 2)}."
        + (f" {left_out} crops without a consensus voxel are left out." if left_out else "")
        + f"\n\n{_who_table(summary['model']['name'], whole)}\n{_group_table(groups)}"
    )


def _who_table(name: str, whole: dict) -> str:
    """The model and the readers themselves on the same nodules, a row each."""
    header = ["who", "Dice a nodule, missed = 0", "Dice a nodule, found only", "Dice a patient, missed = 0",
              "Dice a patient, found only", "HD95, mm", "absolute volume error"]  # fmt: skip
    model = ["dice_all", "dice_found", "dice_per_patient", "dice_found_per_patient"]
    readers = ["human_loo_dice", None, "human_loo_dice_per_patient", None]
    rows = [
        [name, *(interval(whole[key]) for key in model), interval(whole["hd95_mm"], 2),
         interval(whole["absolute_volume_error"], 2)],
        ["readers, leave-one-out", *(interval(whole[key]) if key else "-" for key in readers), "-", "-"],
    ]  # fmt: skip
    return table(header, rows)


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
    return table(header, rows)


def _scans(summary: dict) -> str:
    point = summary["operating_point"]["consensus"]
    whole = summary["groups"].get("all")
    dice = f", mean Dice {interval(whole['dice_all'])} with missed nodules at 0" if whole else ""
    tables = f"{_who_table(summary['model']['name'], whole)}\n{_group_table(summary['groups'])}\n" if whole else ""
    return (
        f"Found {point['hits']} of {point['nodules']} nodules on {point['scans']} scans{dice}; whole-scan Dice "
        f"{interval(summary['scan_dice'])}; "
        f"{interval(point['false_per_scan'], 2)} false findings a scan (most on one scan: {point['false_worst_scan']}) "
        f"at the model's threshold {summary['threshold']:g}.\n\n{_case_table(summary['cases'])}\n"
        + (f"{_nodule_table(summary['nodules'])}\n" if summary.get("nodules") else "")
        + f"{tables}{_detection_table(summary)}"
        + (f"\n{_group_detection_table(summary['detection_by_group'])}" if whole else "")
    )


def _case_table(cases: list[dict]) -> str:
    header = ["case", "nodules", "found", "mean Dice, missed = 0", "whole-scan Dice", "false", "ignored", "seconds",
              "peak memory, GiB"]  # fmt: skip
    rows = [
        [c["case"], c["nodules"], c["found"], number(c["dice_all"]), number(c["scan_dice"]), c["false"], c["ignored"],
         number(c["seconds"], 0), number(c["peak_gib"], 1)]
        for c in cases
    ]  # fmt: skip
    return table(header, rows)


def _nodule_table(nodules: list[dict]) -> str:
    header = ["case", "nodule", "readers", "diameter, mm", "found", "Dice", "readers' leave-one-out Dice", "HD95, mm",
              "volume error"]  # fmt: skip
    rows = [
        [n["case"], n["nodule"], n["readers"], number(n["diameter_mm"], 1), _found_text(n),
         number(n["dice"]) if n["counts"] else "-", number(n["human_loo_dice"]), number(n["hd95_mm"], 1),
         number(n["volume_error"], 2)]
        for n in nodules
    ]  # fmt: skip
    return table(header, rows)


def _found_text(nodule: dict) -> str:
    if not nodule["counts"]:
        return "does not count"
    return "yes" if nodule["found"] else "no"


def _detection_table(summary: dict) -> str:
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
    return table(["detection", "segmentation, centroid in the consensus", "LUNA16-like, center within radius"], rows)


def _group_detection_table(groups: dict) -> str:
    """Precision is not split: a false finding belongs to no group."""
    rows = [[name, group["nodules"], interval(group["cpm"])] for name, group in groups.items()]
    return table(["nodules", "n", "CPM, LUNA16-like, false findings of all scans"], rows)


def _colophon(summary: dict) -> str:
    bootstrap, model = summary["bootstrap"], summary["model"]
    weights = ", ".join(f"{name} {sha}" for name, sha in sorted(model["sha256"].items()))
    files = "".join(f", {name} (SHA-256 {sha[:16]})" for name, sha in summary["data"]["files"].items())
    few = " Intervals from so few patients are rough." if summary["patients"] < FEW_PATIENTS else ""
    return "\n".join(
        [
            INTERVAL_NOTE.format(**bootstrap) + few,
            "",
            f"- Protocol: {summary['protocol']}",
            f"- Data: {summary['data']['name']}{files}",
            f"- Split: {summary['split']}",
            f"- Model: {model['name']}, SHA-256: {weights}",
            "- Versions: " + ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
            "",
        ]
    )
