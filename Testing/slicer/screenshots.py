"""Draw the README's pictures: a real scan through the real core, in the real Slicer views."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import slicer_host

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LNHG_DATA") or ROOT.parent / "shared" / "data")
CASE = DATA / "ct" / "lidc-idri-0003"
OUT = ROOT / "Resources" / "Screenshots"

if __name__ == "__main__" and slicer_host.failure():
    sys.exit(f"Screenshots need Slicer's views: {slicer_host.failure()}")
slicer_host.start()

import composition
import module_panel
import numpy as np
from composition import Panel
from LNHGTrainingLib.evaluation import metrics
from LNHGTrainingLib.evaluation.matching import paired_masks
from LNHGTrainingLib.evaluation.scans import AnnotatedScan, read_case
from PIL.Image import Image
from stage import Stage

LARGE, SMALL, QUARTER = (771, 540), (509, 400), (495, 480)
PANEL_SIZE = (539, 2 * QUARTER[1] + composition.CAPTION)
FIELD_MM = 125.0
SMALL_VIEWS = dict.fromkeys(("Coronal", "Sagittal"), SMALL)
QUARTER_VIEWS = {f"{name} quarter": QUARTER for name in ("Axial", "Coronal", "Sagittal")}
SIZES = {"Axial": LARGE, **SMALL_VIEWS, **QUARTER_VIEWS}
HERO_TITLE = "LNHG for 3D Slicer finds lung nodules on chest CT, outlines them and maps the signal inside"
CLOSE_TITLE = "One finding from near: the CT, its outline and its heterogeneity map"
PANEL_CAPTION = "Panel: one click finds, the table leads from finding to finding"
STAND_IN = "Views: 3D Slicer's own libraries. Panel: drawn by a stand-in for Slicer's Qt; its style differs."
SOURCE = "CT: LIDC-IDRI, The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0."


@dataclass(frozen=True)
class Match:
    """A finding and the nodule that it agrees with best.

    Attributes:
        number: of the finding.
        dice: with the voxels inside at least half of the readers' outlines.
        readers: who outlined the nodule.
    """

    number: int
    dice: float
    readers: int


def matches(case: AnnotatedScan, labels: np.ndarray) -> list[Match]:
    """Return the best finding of each nodule of three or more readers, the best first."""
    found = []
    for nodule in (each for each in case.nodules if each.counts):
        numbers = np.unique(labels[nodule.box][nodule.consensus])
        dices = {int(n): metrics.dice(*paired_masks(int(n), labels, nodule)) for n in numbers if n}
        if dices:
            best = max(dices, key=dices.get)
            found.append(Match(best, dices[best], len(nodule.readers)))
    return sorted(found, key=lambda match: -match.dice)


def draw_close(stage: Stage, nodule: dict, lungs: Panel, notes: list[str]) -> Image:
    """Compose the picture that shows a finding from near, with and without the map."""
    large = [
        stage.slice_panel("Axial", "Chest CT, axial, lung window (W 1500, L \N{MINUS SIGN}600 HU)", overlay=False),
        stage.slice_panel("Axial", _caption(nodule), legend=True),
    ]
    small = [stage.slice_panel(name, name) for name in SMALL_VIEWS]
    return composition.compose(CLOSE_TITLE, [large, [*small, lungs]], notes)


def draw_four_up(stage: Stage, nodule: dict, lungs: Panel) -> Panel:
    """Put the views in the order of Slicer's four-up layout."""
    axial = stage.slice_panel("Axial quarter", _short_caption(nodule), legend=True)
    others = [stage.slice_panel(f"{name} quarter", name) for name in ("Coronal", "Sagittal")]
    return Panel(np.asarray(composition.tile([[axial, lungs], others])), "")


def _short_caption(nodule: dict) -> str:
    m, times = nodule["measurement"], "\N{MULTIPLICATION SIGN}"
    return (
        f"Nodule {nodule['number']}, axial: {m['long_axis_mm']:.1f} {times} {m['short_axis_mm']:.1f} mm, with its map"
    )


def _caption(nodule: dict) -> str:
    m, times, cubed = nodule["measurement"], "\N{MULTIPLICATION SIGN}", "\N{SUPERSCRIPT THREE}"
    return (
        f"Nodule {nodule['number']}: {m['long_axis_mm']:.1f} {times} {m['short_axis_mm']:.1f} mm, "
        f"{m['volume_mm3']:.0f} mm{cubed}, {m['attenuation']}, score {nodule['score']:.2f}"
    )


def notes_of(case: AnnotatedScan, report: dict, found: list[Match]) -> list[str]:
    """Say what is shown of how much, and whose data it is."""
    marked, best = sum(nodule.counts for nodule in case.nodules), found[0]
    return [
        f"{case.name}, model {report['model']['name']}, threshold {report['options']['threshold']:.2f}: "
        f"{len(found)} of the {marked} nodules that three or more readers outlined are among the "
        f"{len(report['nodules'])} findings. Shown: the one closest to its {best.readers} readers (Dice "
        f"{best.dice:.2f}).",
        f"Research use only, not for diagnosis. {SOURCE} Outline and map interpolated between voxels, as the CT is.",
    ]


def run_core(ct: Path, result: Path, threshold: float | None) -> None:
    """Run `lnhg segment` with its progress on the terminal."""
    choice = [] if threshold is None else ["--threshold", str(threshold)]
    command = [sys.executable, "-m", "LNHGLib", "segment", str(ct), str(result), *choice]
    subprocess.run(command, cwd=ROOT / "LNHGSegmentation", check=True)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=Path, default=CASE, help="folder with ct.nii.gz, meta.json and readers' masks")
    parser.add_argument("--result", type=Path, help="what lnhg segment wrote for the case; made anew by default")
    parser.add_argument("--threshold", type=float, help="lowest score kept; default: the model's")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures")
    options = parser.parse_args()
    if not options.case.is_dir():
        print(f"Screenshots skipped: there is no {options.case}; set LNHG_DATA to the folder that holds ct.")
        return
    with tempfile.TemporaryDirectory() as folder:
        result = options.result or Path(folder) / "result"
        if options.result is None:
            run_core((options.case / "ct.nii.gz").resolve(), result, options.threshold)
        draw(options.case, result, options.out)


def draw(case_folder: Path, result: Path, out: Path) -> None:
    """Write the pictures of a case and its result."""
    case = read_case(case_folder)
    stage = Stage(case.name, case.volume, result, SIZES)
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(stage, case, result).items():
        picture.save(out / name, optimize=True)
        print(out / name)


def pictures(stage: Stage, case: AnnotatedScan, result: Path) -> dict[str, Image]:
    """Compose the pictures about the finding that agrees best with its readers; returns them by file name."""
    report = json.loads((result / "report.json").read_text(encoding="utf-8"))
    found = matches(case, stage.labels)
    if not found:
        sys.exit(f"{result} holds none of the nodules that the readers of {case.name} outlined: choose another case.")
    stage.go_to(found[0].number, FIELD_MM)
    nodule = next(each for each in report["nodules"] if each["number"] == found[0].number)
    notes = notes_of(case, report, found)
    outlined = stage.result.segmentation.GetSegmentation().GetNumberOfSegments()  # a detector-box has no voxels to draw
    about = f"The {outlined} outlined findings, from the front"
    close = draw_close(stage, nodule, stage.lungs_panel(SMALL, about), notes)
    four_up = draw_four_up(stage, nodule, stage.lungs_panel(QUARTER, about, zoom=1.4))
    panel = Panel(
        module_panel.picture_after_run(result, PANEL_SIZE, found[0].number), PANEL_CAPTION
    )  # last: it adds a second result
    hero = composition.compose(HERO_TITLE, [[panel, four_up]], [*notes, STAND_IN])
    return {"LNHG-1.png": hero, "LNHG-2.png": close}


if __name__ == "__main__":
    main()
