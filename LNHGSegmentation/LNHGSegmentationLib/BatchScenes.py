"""A cohort in 3D Slicer without its window: `lnhg batch`, then a scene a case.

    Slicer --no-main-window --python-script .../LNHGSegmentationLib/BatchScenes.py INPUT OUT [options of lnhg batch]

OUT gets all that `lnhg batch` writes, and OUT/scenes/<case>.mrb with the CT, its nodules and the heterogeneity map. Run
again with --resume, it goes on: scenes newer than their results are kept. The exit status is that of `lnhg batch`.
"""

import csv
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import slicer

MODULE_FOLDER = Path(__file__).resolve().parents[1]  # holds LNHGLib and LNHGSegmentationLib
CORE = "import sys; sys.path.insert(0, {folder!r}); from LNHGLib.__main__ import main; sys.exit(main())"


def main(arguments: list[str], python: str | None = None) -> int:
    """Run the batch and make the scenes.

    :param arguments: those of ``lnhg batch``.
    :param python: Python interpreter for the core; by default PythonSlicer.
    :return: exit status.
    """
    from LNHGLib.__main__ import parse

    from LNHGSegmentationLib.SegmentationLogic import pythonSlicer

    core = [python or pythonSlicer(), "-c", CORE.format(folder=str(MODULE_FOLDER))]
    status = subprocess.run([*core, "batch", *arguments], check=False).returncode
    if status == 0:
        options = parse(["batch", *arguments])
        saveScenes(options.inputs, options.out)
    return status


def saveScenes(inputs: list[str], out: Path) -> list[Path]:
    """Save a scene for each case of a batch that is done.

    :param inputs: INPUT of the batch.
    :param out: OUT of the batch.
    :return: the scenes that were made anew.
    """
    from LNHGLib.cohort import find_cases

    with (out / "cases.csv").open(newline="", encoding="utf-8") as file:
        done = {row["case"] for row in csv.DictReader(file) if row["status"] == "done"}
    made = []
    for case in find_cases(inputs, out).cases:
        target, results = out / "scenes" / f"{case.id}.mrb", out / "cases" / case.id
        if case.id in done and not (target.exists() and target.stat().st_mtime >= results.stat().st_mtime):
            logging.info("LNHG: saving %s", target)
            _saveScene(case, results, target)
            made.append(target)
    return made


def _saveScene(case, results: Path, target: Path) -> None:
    from LNHGSegmentationLib import Overlay, ResultNodes
    from LNHGSegmentationLib.VolumeExchange import VolumeExchange

    slicer.mrmlScene.Clear(0)
    volumeNode = _volumeNode(case)
    Overlay.setUpCT(volumeNode)
    ResultNodes.load(results, volumeNode, VolumeExchange(volumeNode))
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".lnhg-") as folder:
        part = Path(folder) / target.name
        if not slicer.mrmlScene.WriteToMRB(str(part)):
            raise RuntimeError(
                f"The scene {target} cannot be written: check that its folder has room and may be written."
            )
        part.replace(target)
    slicer.mrmlScene.Clear(0)


def _volumeNode(case) -> slicer.vtkMRMLScalarVolumeNode:
    """Put a scan into the scene as the core reads it: the results lie on its voxels."""
    from LNHGLib.batch_segment import read_case

    from LNHGSegmentationLib import Geometry

    with tempfile.TemporaryDirectory() as folder:
        volume = read_case(case, Path(folder))
    return Geometry.addVolume(volume.array, volume.grid.affine, case.id)


if __name__ == "__main__":
    sys.path.insert(0, str(MODULE_FOLDER))
    slicer.util.exit(main(sys.argv[1:]))
