"""Plays the core in a child process of its own launcher, as under PythonSlicer; `mode` in its folder says how.

Called as: fake_core.py FOLDER -m LNHGLib segment CT OUT --json [--model NAME] ..., or ... -m LNHGLib devices --json,
which prints the file `devices` of its folder.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

RUN = {
    "model": {"name": "lnhg-1mm", "threshold": 0.5},
    "device": {"used": "cpu", "name": "made-up", "runtime": "openvino"},
    "options": {"threshold": 0.25},
    "fusion": {"highest_score": 0.9},
    "warnings": [],
}
FROC = {
    "thresholds": [0.9, 0.5, 0.2],
    "found": [3, 9, 11],
    "false_per_scan": [0.0, 0.3, 0.84],
    "nodules": 12,
    "scans": 7,
    "rests_on": "seven scans, each by networks that did not see its patient",
}


def main() -> int:
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    if arguments[2] == "devices":
        print((folder / "devices").read_text())
        return 0
    mode = (folder / "mode").read_text()
    with (folder / "log").open("a") as log:
        log.write(f"args {' '.join(arguments)}\ncwd {Path.cwd()}\npid {os.getpid()}\n")
    if mode == "crash":
        os.kill(os.getpid(), 9)
    print("PROGRESS 0.10 reading the CT", flush=True)
    if mode == "refuse":
        print(
            "lnhg: ct.nrrd holds values from 0 to 255, a CT in HU was expected: load a chest CT.",
            file=sys.stderr,
        )
        return 2
    if mode == "two slices":
        print(f"lnhg: {arguments[3]} has 2 slices, expected at least 10.", file=sys.stderr)
        return 2
    if mode in ("slow", "deaf"):
        return wait(folder, deaf=mode == "deaf")
    print("PROGRESS 0.50 segmenting", flush=True)
    place = next((argument[5:] for argument in arguments if argument.startswith("--at=")), None)
    if place is not None and mode != "refuse":
        outline_at(Path(arguments[3]), Path(arguments[4]), [float(value) for value in place.split(",")])
    else:
        modes = {"empty": mode == "nothing", "incomplete": mode == "incomplete", "probability": mode == "probability"}
        segment(Path(arguments[3]), Path(arguments[4]), **modes)
    print("PROGRESS 1.00 done", flush=True)
    return 0


def wait(folder: Path, deaf: bool) -> int:
    """Work until cancelled; a deaf core ignores the cancel file and has a child of its own."""
    child = subprocess.Popen(["sleep", "60"]) if deaf else None
    if child:
        with (folder / "log").open("a") as log:
            log.write(f"pid {child.pid}\n")
    print("PROGRESS 0.20 working", flush=True)
    cancel = Path(os.environ["LNHG_CANCEL_FILE"])
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if cancel.exists() and not deaf:
            print("cancelled", file=sys.stderr)
            return 1
        time.sleep(0.05)
    return 0


def segment(ct_path: Path, out: Path, empty: bool, incomplete: bool, probability: bool = False) -> None:
    """Write a result: bright components of the CT, with a signal that grows along x; maybe one of probabilities."""
    import numpy as np
    import SimpleITK as sitk

    image = sitk.ReadImage(str(ct_path))
    found = sitk.ConnectedComponent(image > (10_000 if empty else -300))
    labels = sitk.GetArrayFromImage(found).astype(np.uint16)
    signal = np.broadcast_to(np.linspace(0.1, 0.9, labels.shape[2], dtype=np.float32), labels.shape)
    out.mkdir()
    write(image, labels, out / "labelmap.nii.gz")
    write(image, signal, out / "signal.nii.gz")
    if not incomplete:
        write(image, np.where(labels > 0, signal, np.float32(0)), out / "heterogeneity.nii.gz")
    count = int(labels.max())
    nodules = [{"number": number + 1, "score": 0.9 - 0.1 * number, "provenance": "fused"} for number in range(count)]
    probable = {"score_scale": "probability", "model": {**RUN["model"], "froc": FROC}} if probability else {}
    (out / "report.json").write_text(json.dumps({"nodules": nodules, **RUN, **probable}))


def outline_at(ct_path: Path, out: Path, place: list[float]) -> None:
    """Write the bright component at a place as the only nodule."""
    import SimpleITK as sitk

    segment(ct_path, out, empty=False, incomplete=False)
    labels = sitk.ReadImage(str(out / "labelmap.nii.gz"))
    number = labels[labels.TransformPhysicalPointToIndex(place)]
    sitk.WriteImage(labels == number, str(out / "labelmap.nii.gz"))
    nodule = {"number": 1, "score": 0.3, "provenance": "segmenter", "slice": 1}
    (out / "report.json").write_text(json.dumps({"nodules": [nodule], **RUN}))


def write(image, array, path: Path) -> None:
    import SimpleITK as sitk

    written = sitk.GetImageFromArray(array)
    written.CopyInformation(image)
    sitk.WriteImage(written, str(path))


if __name__ == "__main__":
    sys.exit(main())
