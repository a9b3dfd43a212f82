"""What Slicer's DICOM module leaves: the database of files, and the CT node of a series."""

from pathlib import Path

import pytest
import report_data
import slicer
from LNHGLib.report.dicom_source import OriginalSeries, find_series
from LNHGSegmentationLib.Core.ReportTask import INSTANCES_ATTRIBUTE
from LNHGSegmentationLib.Scene.Geometry import addVolume


class Database:
    """Plays slicer.dicomDatabase, a ctkDICOMDatabase."""

    def __init__(self, series: OriginalSeries) -> None:
        self.files = {
            header.SOPInstanceUID: str(file) for header, file in zip(series.slices, series.files, strict=True)
        }

    def fileForInstance(self, uid: str) -> str:
        return self.files.get(uid, "")


def load_ct(
    scan: report_data.Scan, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> slicer.vtkMRMLScalarVolumeNode:
    """Write a scan as DICOM into a folder, and return its CT node as the DICOM module would add it."""
    series = find_series(report_data.write_dicom(scan, folder))
    database = Database(series)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    node = addVolume(scan.hu, series.grid.affine, name)
    node.SetAttribute(INSTANCES_ATTRIBUTE, " ".join(database.files))
    return node
