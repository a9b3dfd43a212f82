"""What a batch does with each scan: what `lnhg segment` does, with a model that is loaded once per process."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LNHGLib.batch.case import Case
from LNHGLib.models import folder as models
from LNHGLib.models.card import SECOND

if TYPE_CHECKING:
    from LNHGLib.image.volume import Volume
    from LNHGLib.segmentation.pipeline import Result
    from LNHGLib.segmentation.runtime import Where


@dataclass(frozen=True)
class SegmentationSpec:
    """What workers are sent, see `worker.JobSpec`.

    Attributes:
        model: folder of the model.
        device: as `devices.choose_device` takes it; "auto" and "cuda" share several GPUs out among the processes.
        threshold: lowest score kept; None takes the model's.
        runtime, exact: as `runtime.choose_runtime` takes them.
    """

    model: Path
    device: str
    threshold: float | None
    runtime: str = "auto"
    exact: bool = False

    def prepare(self, index: int, jobs: int) -> "SegmentationJob":
        """Load the model onto the device of this process.

        Args:
            index: Number of the process, which chooses one of several GPUs.
            jobs: Processes that share the CPU cores.

        Raises:
            InputError: The model was changed, or the device is not there.
        """
        import SimpleITK as sitk  # noqa: N813

        from LNHGLib.segmentation import devices, runtime

        model, device = models.read(self.model), self.device
        if device in ("auto", "cuda") and self.runtime != models.OPENVINO:
            gpus = [found.id for found in devices.find() if found.id != "cpu"]
            device = gpus[index % len(gpus)] if len(gpus) > 1 else device
        where = runtime.choose_runtime(device, model, self.runtime, self.exact)
        threads = max(1, devices.usable_cores() // jobs)
        runtime.set_threads(where, threads)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        for part in ("generator", SECOND, "detector", "classifier"):
            if part in model.card:
                model.network(part, where)
        return SegmentationJob(model, where, self.threshold)


@dataclass(frozen=True, eq=False)
class SegmentationJob:
    """The three stages of a case, see `worker.Job`."""

    model: models.Model
    where: "Where"
    threshold: float | None

    def read(self, case: Case, scratch: Path) -> "Volume":
        """Read the scan."""
        return read_case(case, scratch)

    def compute(self, case: Case, scan: "Volume", progress: Callable[[float, str], None]) -> "Result":
        """Find the nodules.

        Args:
            case: The scan.
            scan: Its volume.
            progress: Told the fraction done and what is being done.
        """
        from LNHGLib.segmentation import pipeline

        return pipeline.segment(scan, self.model, device=self.where, threshold=self.threshold, progress=progress)

    def write(self, case: Case, result: "Result", folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
        """Write the files of `lnhg segment`.

        Args:
            case: The scan.
            result: Its nodules.
            folder: To be made.
            seconds: Of reading and computing.

        Returns:
            The summary for the tables, with warnings and a thumbnail.
        """
        from LNHGLib.figures import thumbnail
        from LNHGLib.measurement.score_scale import scale_of
        from LNHGLib.results import writer

        result.report["seconds"] = {"read": seconds["read"], **result.report["seconds"]}
        writer.write_result(result, folder)
        measured = [nodule.measurement.long_axis_mm for nodule in result.nodules if nodule.measurement]
        return {
            "nodules": len(result.nodules),
            "score_scale": scale_of(result.report),
            "best_score": round(max((nodule.score for nodule in result.nodules), default=0.0), 4),
            "longest_mm": round(max(measured, default=0.0), 4),
            "warnings": result.report["warnings"],
            "thumbnail": thumbnail.make_thumbnail(result),
        }


def read_case(case: Case, scratch: Path) -> "Volume":
    """Read a scan, out of its archive if it lies in one.

    Args:
        case: The scan.
        scratch: An empty folder for what is unpacked.

    Raises:
        InputError: It cannot be read as a chest CT.
    """
    from LNHGLib.image import zip_scans
    from LNHGLib.image.reader import read_volume

    path, files = case.path, case.files
    if case.members:
        files = tuple(zip_scans.unpack(case.path, case.members, scratch))
        path, files = (scratch, files) if case.series_uid else (files[0], ())
    volume = read_volume(path, case.series_uid, files)
    return replace(volume, source=replace(volume.source, path=str(case.path)))
