"""The table of all systems of the documents beside each other, out of the studies that scored them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from LNHGLib.files.text import markdown_table, read_json

from LNHGTrainingLib.baselines import methods
from LNHGTrainingLib.evaluation import metrics, published
from LNHGTrainingLib.evaluation.compare import read_evaluation
from LNHGTrainingLib.evaluation.markdown import interval

COLUMNS = (
    "system", "parameters", "trained", "Dice, missed = 0", "found", "HD95, mm", "Dice over five folds",
    "sensitivity at 1 false a scan", "precision there", "seconds a scan", "its document",
)  # fmt: skip
RATE = "1"
"""False findings a scan."""
FIVE_FOLDS = " (five folds)"


def render(studies: Path) -> str:
    """Return the table as Markdown, with a row for the readers and a sentence on the nodules.

    Outlines are scored on the nodules that all studies have, one fold. What was measured over more folds stands beside
    it or is marked.

    Args:
        studies: the folder of the studies that Resources/methods.toml names.
    """
    listed = methods.systems()
    folders = {
        study for one in listed for study in (one.study, one.five_folds) if study and not study.endswith(".json")
    }
    read = {study: read_evaluation(studies / study) for study in sorted(folders)}
    common = sorted(set.intersection(*(set(each.rows) for each in read.values())))
    seconds = read_json(studies / "systems" / "seconds.json")["seconds"]
    in_paper = published.published()
    printed = {name: f"Dice {test:.2f} %" for name, (_training, test) in published.methods(in_paper["table_1"]).items()}
    precise, recalled = published.methods(in_paper["table_s1"])["L-RF"][3:5]
    printed["L-RF"] = f"recall {recalled:.1f} %, precision {precise:.1f} %"
    rows = []
    for one in listed:
        outlined, five = ["-", "-", "-"], "-"
        if one.study:
            scored = [read[one.study].rows[key] for key in common]
            hd95 = [float(row["hd95_mm"]) if int(row["found"]) else np.nan for row in scored]
            dice, share = ([float(row[column]) for row in scored] for column in ("dice", "found"))
            outlined = [_mean(dice, common), _mean(share, common), _mean(hd95, common, 2)]
        if one.row:
            (method,) = (each for each in read_json(studies / one.five_folds)["methods"] if each["name"] == one.row)
            five = interval(method["groups"]["all"]["dice_all"])
        elif one.folds > 1:
            rows_of_all = read[one.five_folds or one.study].rows
            five = _mean([float(row["dice"]) for row in rows_of_all.values()], list(rows_of_all))
        found, precision = "-", "-"
        if one.detection:
            report = read_json(studies / one.detection)
            sensitivity = report["systems"][one.found_by]["sensitivity_at"][RATE]
            found = interval(sensitivity) + (FIVE_FOLDS if len(report["folds"]) > 1 else "")
            in_scan = report["nodules_in_scans"] / report["scans"]
            true = {end: share * in_scan for end, share in sensitivity.items()}  # a scan, beside 1 that is false
            precision = interval({end: hits / (hits + float(RATE)) for end, hits in true.items()}, 2)
        times = seconds.get(one.timed_as or one.name)
        taken = f"{np.median(times):.0f}" if times else "-"
        said = printed.get(one.printed, one.printed or "-")
        about = methods.parameters(one, as_trained=True), methods.trained(one)
        rows.append([one.name, *about, *outlined, five, found, precision, taken, said])
    most = max(read.values(), key=lambda one: len(one.rows)).rows
    readers, five = (_mean([float(most[key]["human_loo_dice"]) for key in some], some) for some in (common, list(most)))
    rows.append(["readers, leave-one-out", "-", "-", readers, "-", "-", five, "-", "-", "-", "-"])
    patients = len({key[0] for key in common})
    by_slice = ""
    for one in listed:
        if one.by_slice:
            scored = read_json(studies / one.by_slice / "summary.json")
            dice, hits = (interval(each) for each in (scored["groups"]["all"]["dice_all"], scored["hits_by_slice"]))
            by_slice += f" {one.name} as its document has it, cut by K-means: Dice {dice}, hit by slice {hits}."
    said = f"{len(common)} nodules of {patients} patients, whom no training saw, place given; in brackets the 95 % "
    return markdown_table(COLUMNS, rows) + f"\n{said}confidence interval (patient-cluster bootstrap).{by_slice}\n"


def _mean(values: Sequence[float], nodules: Sequence[tuple[str, ...]], digits: int = 3) -> str:
    return interval(asdict(metrics.mean_interval(np.array(values), [key[0] for key in nodules])), digits)
