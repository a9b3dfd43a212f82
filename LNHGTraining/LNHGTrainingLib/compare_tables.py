"""Markdown from a comparison: a row a method, a row a pair."""

from LNHGTrainingLib.tables import INTERVAL_NOTE, NOT_MEASURED, interval, number, table

ALPHA = 0.05

TESTS_NOTE = (
    "Differences are of Dice a nodule with missed nodules at 0, first minus second. Wilcoxon (two-sided signed-rank) "
    "and equivalence (two one-sided t-tests, margin {margin:g} Dice) are paired and take one mean difference a "
    "patient, as the nodules of a patient are not independent. p values are adjusted over all pairs (Holm); a "
    "difference or an equivalence is called one below {alpha:g}. A large p of Wilcoxon alone is no proof of equality."
)


def render(report: dict) -> str:
    """The tables of a comparison.

    Args:
        report: As in `comparison.json`.
    """
    count = len(report["methods"])
    parts = [
        f"# {count} method{'s' * (count > 1)} on {report['nodules']} nodules of {report['patients']} patients\n",
        _methods(report),
        _groups(report),
        _detection(report) if report["kind"] == "scans" else "",
        _pairs(report),
        TESTS_NOTE.format(margin=report["margin"], alpha=ALPHA) + "\n",
        INTERVAL_NOTE.format(**report["bootstrap"]) + "\n",
        _sources(report),
    ]
    return "\n".join(part for part in parts if part)


def _methods(report: dict) -> str:
    header = ["method", "found", "Dice a nodule, missed = 0", "Dice a nodule, found only", "Dice a patient, missed = 0",
              "Dice a patient, found only", "HD95, mm", "volume error", "absolute volume error"]  # fmt: skip
    counted = any("elsewhere" in method for method in report["methods"])
    if counted:
        header.append("marked elsewhere, a cube")
    dice = ("found_share", "dice_all", "dice_found", "dice_per_patient", "dice_found_per_patient")
    rows = []
    for method in report["methods"]:
        whole = method["groups"]["all"]
        coarse = (interval(whole[key], 2) for key in ("hd95_mm", "volume_error", "absolute_volume_error"))
        rows.append([method["name"], *(interval(whole[key]) for key in dice), *coarse])
        if counted:
            rows[-1].append(interval(method.get("elsewhere", NOT_MEASURED), 2))
    whole = report["methods"][0]["groups"]["all"]
    human = [interval(whole[key]) for key in ("human_loo_dice", "human_loo_dice_per_patient")]
    rows.append(["readers, leave-one-out", "-", human[0], "-", human[1], *["-"] * (4 + counted)])
    return table(header, rows)


def _groups(report: dict) -> str:
    first = report["methods"][0]["groups"]
    header = ["Dice a nodule, missed = 0", *(f"{name}, n = {group['nodules']}" for name, group in first.items())]
    rows = [
        [method["name"], *(interval(method["groups"][name]["dice_all"]) for name in first)]
        for method in report["methods"]
    ]
    rows.append(["readers, leave-one-out", *(interval(group["human_loo_dice"]) for group in first.values())])
    return table(header, rows)


def _detection(report: dict) -> str:
    header = ["method", "recall", "precision", "F1", "false findings a scan", "CPM", "CPM, LUNA16-like",
              "whole-scan Dice"]  # fmt: skip
    rows = []
    for method in report["methods"]:
        point = method["operating_point"]["consensus"]
        rates = (interval(point[key]) for key in ("sensitivity", "precision", "f1"))
        curves = (interval(method["froc"][rule]["cpm"]) for rule in ("consensus", "luna16_like"))
        false = interval(point["false_per_scan"], 2)
        rows.append([method["name"], *rates, false, *curves, interval(method["scan_dice"])])
    return table(header, rows)


def _pairs(report: dict) -> str:
    header = ["first", "second", "n", "patients", "difference of Dice", "p, Wilcoxon", "p, adjusted",
              "p, equivalence", "p, adjusted", "reading"]  # fmt: skip
    tests = ("wilcoxon_p", "wilcoxon_p_holm", "tost_p", "tost_p_holm")
    rows = [
        [pair["first"], pair["second"], pair["nodules"], pair["patients"], interval(pair["difference"]),
         *(p_text(pair[test]) for test in tests), reading(pair)]
        for pair in report["pairs"]
    ]  # fmt: skip
    return table(header, rows)


def p_text(value: float | None) -> str:
    """A p value as text; a dash where there was no test."""
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def reading(pair: dict) -> str:
    """What both adjusted tests say together."""
    differ, same = (pair[key] is not None and pair[key] < ALPHA for key in ("wilcoxon_p_holm", "tost_p_holm"))
    if differ:
        return "different, within the margin" if same else "different"
    return "equivalent" if same else "undecided"


def _sources(report: dict) -> str:
    lines = [f"- Protocol: {report['protocol']}", f"- Data: {report['data']['name']}"]
    for method in report["methods"]:
        weights = ", ".join(f"{name} {sha}" for name, sha in sorted(method["model"]["sha256"].items()))
        threshold = "" if method["threshold"] is None else f" Threshold {method['threshold']:g}."
        lines.append(f"- {method['name']}: {method['split']}{threshold} SHA-256: {weights}")
    return "\n".join([*lines, ""])
