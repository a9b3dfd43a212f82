"""A cohort in 3D Slicer without its window: `lnhg batch`, then one scene per case.

    Slicer --no-main-window --python-script .../LNHGSegmentationLib/BatchScenes.py INPUT OUT [options of lnhg batch]

OUT gets all that `lnhg batch` writes, and OUT/scenes/<case>.mrb with the CT, its nodules and the heterogeneity map.
Each scene stands alone: OUT/scenes/failed.csv lists those that could not be saved, and why. Where the batch ended
early, its finished cases get their scenes too, unless it was refused (status 2: wrong arguments, or OUT is full). Run
again with --resume, it goes on: scenes newer than their results are kept.

Slicer always ends. The exit status is that of `lnhg batch` if it failed, else 1 if a scene could not be saved, else 0.
"""

import errno
import logging
import subprocess
import sys
from pathlib import Path

import slicer

MODULE_FOLDER = Path(__file__).resolve().parents[1]  # holds LNHGLib and LNHGSegmentationLib
CORE = "import sys; sys.path.insert(0, {folder!r}); from LNHGLib.__main__ import main; sys.exit(main())"
FAILED = 1


def main(arguments: list[str], python: str | None = None) -> int:
    """Run the batch and make the scenes; whatever happens, it returns, as Slicer would hang else.

    Args:
        arguments: Those of ``lnhg batch``.
        python: Python interpreter for the core; by default PythonSlicer.

    Returns:
        Exit status.
    """
    try:
        from LNHGLib.__main__ import WRONG, parse

        from LNHGSegmentationLib.Core.CoreTask import pythonSlicer

        core = [python or pythonSlicer(), "-c", CORE.format(folder=str(MODULE_FOLDER))]
        status = subprocess.run([*core, "batch", *arguments], check=False).returncode
        if status == WRONG:
            return status
        options = parse(["batch", *arguments])
        _made, failed = saveScenes(options.inputs, options.out)
        return status or (FAILED if failed else 0)
    except SystemExit as end:  # of --help
        return end.code if isinstance(end.code, int) else FAILED
    except KeyboardInterrupt:
        logging.error("LNHG: stopped by the user; the same command with --resume goes on.")
    except BaseException as error:
        logging.error("LNHG: %s", _reason(error))
    return FAILED


def saveScenes(inputs: list[str], out: Path) -> tuple[list[Path], dict[str, str]]:
    """Save a scene for each case of a batch that is done; one that cannot be saved keeps no other back.

    Args:
        inputs: INPUT of the batch.
        out: OUT of the batch.

    Returns:
        The scenes that were made anew, and one sentence for each case whose scene could not be saved.
    """
    from LNHGLib.batch.discover import find_cases
    from LNHGLib.batch.store import DONE, Store
    from LNHGLib.files.text import write_csv

    out = out.absolute()
    store, made, failed = Store(out), [], {}
    for case in find_cases(inputs, out).cases:
        target, results = out / "scenes" / f"{case.id}.mrb", store.folder(case.id)
        try:
            record = store.ended(case)
            if record is None or record.status != DONE:
                continue
            if target.is_file() and target.stat().st_mtime >= results.stat().st_mtime:
                continue
            logging.info("LNHG: saving %s", target)
            _saveScene(case, results, target)
            made.append(target)
        except (Exception, SystemExit) as error:
            failed[case.id] = _reason(error)
            logging.error("LNHG: the scene of %s was not saved: %s", case.id, failed[case.id])
    slicer.mrmlScene.Clear(0)
    listing = out / "scenes" / "failed.csv"
    try:
        listing.unlink(missing_ok=True)
        if failed:
            listing.parent.mkdir(exist_ok=True)
            rows = [{"case": case, "reason": reason} for case, reason in failed.items()]
            write_csv(listing, rows, ("case", "reason"))
    except OSError as error:  # the disk that is full for the scenes is full for the list: the log has it
        logging.error("LNHG: %s was not written: %s", listing, error)
    return made, failed


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    told = text and isinstance(error, (OSError, RuntimeError, ValueError))
    return text if told else f"{type(error).__name__}: {text or 'no reason given'}"


def _saveScene(case, results: Path, target: Path) -> None:
    """Put a scan into the scene as the core reads it, as the results lie on its voxels, and save it with them."""
    from LNHGLib.batch.segment_case import read_case
    from LNHGLib.files import atomic

    from LNHGSegmentationLib.Scene import Geometry, Overlay, ResultNodes
    from LNHGSegmentationLib.Scene.VolumeExchange import VolumeExchange

    slicer.mrmlScene.Clear(0)
    with atomic.temporary_folder() as folder:
        volume = read_case(case, folder)
    volumeNode = Geometry.addVolume(volume.array, volume.grid.affine, case.id)
    Overlay.setUpCT(volumeNode)
    ResultNodes.load(results, volumeNode, VolumeExchange(volumeNode))
    with atomic.explain_disk_errors(target.parent, "The scene"):
        target.parent.mkdir(exist_ok=True)
        with atomic.temporary_folder(target.parent) as folder:
            _writeBundle(folder / target.name)
            (folder / target.name).replace(target)


def _writeBundle(path: Path) -> None:
    """Write the scene; a bundle that fails leaves its files in Slicer's cache, so that lies beside it meanwhile."""
    cache = slicer.mrmlScene.GetCacheManager()
    before = cache.GetRemoteCacheDirectory()
    cache.SetRemoteCacheDirectory(str(path.parent))
    try:
        if not slicer.mrmlScene.WriteToMRB(str(path)):
            raise OSError(errno.EIO, "Slicer could not write it to its end")
    finally:
        cache.SetRemoteCacheDirectory(before)


if __name__ == "__main__":
    sys.path.insert(0, str(MODULE_FOLDER))
    slicer.util.exit(main(sys.argv[1:]))
