"""What the run section says to the user."""

from LNHGLib.measurement.score_scale import PROBABILITY, scale_of
from slicer.i18n import tr as _

from LNHGSegmentationLib.Core.Devices import Devices
from LNHGSegmentationLib.Findings.Findings import Findings
from LNHGSegmentationLib.Panel import FindingsTexts
from LNHGSegmentationLib.Scene import SceneResults

MINUTE = 60


RUNTIMES = {"openvino": "OpenVINO", "torch": "PyTorch"}


def whyNot(volumeNode, absentDevice: str, idleRuntime: str) -> str:
    """Return why a run cannot be started, or an empty string.

    Args:
        volumeNode: The CT, None where none is chosen.
        absentDevice: The chosen device where this computer lacks it, else an empty text.
        idleRuntime: Why the chosen program cannot compute the networks here, or an empty text.
    """
    if volumeNode is None:
        return _("Select a chest CT; load one with Add Data or the DICOM module if there is none.")
    image = volumeNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:  # Slicer tells of a volume before it has voxels
        return _("The selected volume is empty: select a chest CT.")
    if SceneResults.isMap(volumeNode):
        return _("The selected volume is a heterogeneity map: select the chest CT itself.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("The selected volume has {count} values a voxel, a CT has one: select a chest CT.").format(
            count=image.GetNumberOfScalarComponents()
        )
    if absentDevice:
        return _("The device {device} is not on this computer: choose another one under Advanced.").format(
            device=absentDevice
        )
    return idleRuntime


def idleRuntime(runtime: str, model: str, devices: Devices) -> str:
    """Return why nothing can compute the networks as chosen: on another device, or with another program, it can.

    Args:
        runtime: That was chosen: "auto", "openvino" or "torch".
        model: Name of the model.
        devices: Knows what is installed here.
    """
    if runtime in RUNTIMES and runtime not in devices.runtimes():
        text = _("{program} is not installed: choose another program under Advanced, or install it under Set-up.")
        return text.format(program=RUNTIMES[runtime])
    if "torch" in devices.runtimes():
        return _("OpenVINO cannot compute {model} on this device: choose Automatic under Advanced.").format(model=model)
    text = _("{model} needs PyTorch on this device: install it under Set-up, or choose another under Advanced.")
    return text.format(model=model)


def runtimeItems(devices: Devices) -> list[tuple[str, str]]:
    """Return the choices of the list of programs: what the core calls them, and what the user reads."""
    texts = {"openvino": _("OpenVINO (CPU only)"), "torch": _("PyTorch (GPU or CPU)")}
    if devices.areKnown:
        absent = _("{program}, not installed")
        texts = {
            key: text if key in devices.runtimes() else absent.format(program=RUNTIMES[key])
            for key, text in texts.items()
        }
    return [("auto", _("Automatic")), *texts.items()]


def applyToolTip(running: bool, reason: str) -> str:
    """Return what a click on the button would do, or why it does nothing.

    Args:
        running: Whether a run is under way.
        reason: Why none can be started, or an empty text.
    """
    if running:
        return _("End the running segmentation; nothing is changed.")
    return reason or _("Find and outline the nodules of the selected CT. You can go on working meanwhile.")


def expectation(seconds: float | None, device: dict | None, runtime: str, trouble: str) -> str:
    """Return how long a run will take and on what, or why this is not known.

    Args:
        seconds: That it takes, None while this is not known.
        device: That it runs on, None while this is not known.
        runtime: What computes it, "openvino" or "torch".
        trouble: Why the devices are not known, or an empty text.
    """
    if device is None:
        return trouble
    name = deviceName(device)
    if runtime:
        name = _("{device} by {program}").format(device=name, program=RUNTIMES[runtime])
    if seconds is None:
        return _("On {device}. How long it takes is known after the first run.").format(device=name)
    return _("Takes {duration} on {device}.").format(duration=duration(seconds), device=name)


def progress(stage: str, left: float | None) -> str:
    """Return the stage and the time that is left.

    Args:
        stage: What is done now.
        left: Seconds, None while this is not known.
    """
    if left is None:
        return stage
    return _("{stage}, {duration} left").format(stage=stage, duration=duration(left))


def duration(seconds: float) -> str:
    """Return a time as coarsely as it is known."""
    if seconds < 10:
        return _("a few seconds")
    if seconds < 0.75 * MINUTE:
        return _("about {count} seconds").format(count=10 * max(1, round(seconds / 10)))
    minutes = max(1, round(seconds / MINUTE))
    if minutes > 10:
        minutes = 5 * round(minutes / 5)
    return _("about 1 minute") if minutes == 1 else _("about {count} minutes").format(count=minutes)


def deviceName(device: dict) -> str:
    """Return a device as the user knows it."""
    if device["id"] != "cpu":
        return device["name"]
    if device["cores"] == 1:
        return _("the CPU (1 core)")
    return _("the CPU ({count} cores)").format(count=device["cores"])


def deviceItems(devices: list[dict]) -> list[tuple[str, str]]:
    """Return the choices of the device list: what the core calls it, and what the user reads."""
    if not devices:
        return [("auto", _("Automatic")), ("cpu", _("CPU"))]
    items = [("auto", _("Automatic: {device}").format(device=deviceName(devices[0])))]
    for device in devices:
        name = _("CPU: {name}").format(name=device["name"])
        if device["id"] != "cpu":
            name = _("GPU: {name}, {memory:.0f} GB ({free:.0f} GB free)").format(
                name=device["name"], memory=device["memory_gib"], free=device["free_gib"]
            )
        items.append((device["id"], name))
    return items


def absentDevice(device: str, areKnown: bool) -> str:
    """Return the text for a device that is chosen but not listed.

    Args:
        device: Its name.
        areKnown: Whether the devices of this computer are known.
    """
    return _("{device} (not on this computer)").format(device=device) if areKnown else device


def summary(segmentation, threshold: float) -> str:
    """Say what there is at a score, what the reader did to it, and what the core wants the user to know.

    Args:
        segmentation: The findings, None where there are none.
        threshold: Lowest score of the findings shown.
    """
    run = SceneResults.runOf(segmentation)
    if SceneResults.rowsOf(segmentation) is None or not run:
        return ""
    findings, threshold = Findings(segmentation), round(threshold, 4)
    least, digits = FindingsTexts.leastScore(threshold), FindingsTexts.decimals(threshold)
    rows, shown = findings.rows(), findings.shown(threshold)
    scores = [row["score"] for row in rows if row["score"] is not None]
    highest = max(scores, default=run.get("highest"))
    kind = _("probability") if scale_of(run) == PROBABILITY else _("score")
    kept = [row for row in shown if row["kept"]]
    found = [row for row in kept if row["score"] is not None and row["score"] >= threshold]
    if found:
        count = _("1 nodule") if len(found) == 1 else _("{count} nodules").format(count=len(found))
        first = _("{count} with a {kind} of at least {score}").format(count=count, kind=kind, score=least)
    elif highest is None:
        first = _("No nodule found: the networks saw nothing that looks like one")
    elif highest < threshold:
        first = _("No nodule with a {kind} of at least {score}; the highest {kind} seen is {highest}").format(
            kind=kind, score=least, highest=FindingsTexts.number(FindingsTexts.roundedDown(highest, digits), digits)
        )
    else:
        first = _("No nodule with a {kind} of at least {score}").format(kind=kind, score=least)
    below = len(rows) - len(shown) if found else 0
    for text, count in (
        (_("{count} more below it"), below),
        (_("{count} by you"), len(kept) - len(found)),
        (_("{count} rejected"), len(shown) - len(kept)),
    ):
        first += f", {text.format(count=count)}" if count else ""
    return "\n".join([f"{first}.", *run.get("warnings", [])])
