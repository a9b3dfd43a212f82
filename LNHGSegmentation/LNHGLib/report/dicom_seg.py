"""The kept nodules as a DICOM Segmentation: binary, one segment per nodule, on the original slices."""

import highdicom as hd
import numpy as np
from pydicom.sr.codedict import codes

from LNHGLib.errors import InputError
from LNHGLib.figures.segment_style import segment_color
from LNHGLib.measurement.score_scale import text_of
from LNHGLib.report import dicom_codes
from LNHGLib.report.case import ReportCase, ReportNodule
from LNHGLib.report.dicom_codes import MANUFACTURER, PRODUCT
from LNHGLib.report.dicom_source import OriginalSeries

SERIES_NUMBER = 9001
CONTENT_LABEL = "LUNG_NODULES"


def segmented(case: ReportCase) -> list[ReportNodule]:
    """Return the findings that have voxels, in the order of their segments."""
    return [nodule for nodule in case.nodules if nodule.measurement is not None]


def make_segmentation(case: ReportCase, series: OriginalSeries) -> hd.seg.Segmentation:
    """Make the segmentation object; findings without voxels get no segment.

    Args:
        case: on the grid of the series, see `ReportCase.on`; at least one finding has voxels.
        series: the slices that were segmented. Patient and study are taken from them.

    Returns:
        The object, to be written with `save_as`.
    """
    nodules = segmented(case)
    segment_of = np.zeros(int(case.labels.max()) + 1, np.uint8 if len(nodules) < 256 else np.uint16)
    segment_of[[nodule.number for nodule in nodules]] = np.arange(1, len(nodules) + 1)
    labels = series.found.place.on_slices(case.labels)
    if series.image(0)[1] is not None:  # frames as they stand in the file, also those of other volumes
        if len(series.slices) > 1:
            raise InputError(
                f"The series has {len(series.slices)} enhanced CT files, but a SEG refers to one; join them to one."
            )
        in_file = np.zeros((int(series.slices[0].NumberOfFrames), *labels.shape[1:]), labels.dtype)
        in_file[[header.frame for header in series.found.headers]] = labels
        labels = in_file
    segmentation = hd.seg.Segmentation(
        source_images=series.slices,
        pixel_array=segment_of[labels],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(nodule, number, case, series) for number, nodule in enumerate(nodules, 1)],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=PRODUCT,
        software_versions=dicom_codes.version_of(case.report),
        device_serial_number="0",
        content_label=CONTENT_LABEL,
        content_description="Lung nodules, research use",
    )
    segmentation.SeriesDescription = "LNHG lung nodules (research use)"
    return segmentation


def _describe(nodule: ReportNodule, number: int, case: ReportCase, series: OriginalSeries) -> hd.seg.SegmentDescription:
    """Return the item of the Segment Sequence (0062,0002) for a finding."""
    algorithm = hd.AlgorithmIdentificationSequence(
        name=PRODUCT,
        family=codes.DCM.ArtificialIntelligence,
        version=dicom_codes.version_of(case.report),
        source=MANUFACTURER,
        parameters=dicom_codes.parameters_of(case.report),
    )
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=nodule.label[:64],
        segmented_property_category=dicom_codes.ALTERED_STRUCTURE,
        segmented_property_type=dicom_codes.LUNG_NODULE,
        algorithm_type=nodule.algorithm_type,
        algorithm_identification=None if nodule.algorithm_type == "MANUAL" else algorithm,
        tracking_uid=dicom_codes.tracking_uid(nodule, case, series.series_uid),
        tracking_id=dicom_codes.tracking_id(nodule),
        anatomic_regions=[dicom_codes.LUNG],
    )
    if nodule.score is not None:
        description.SegmentDescription = text_of(nodule.score, case.score_scale)
    rgb = [round(255 * channel) for channel in segment_color(nodule.number)]
    description.RecommendedDisplayCIELabValue = list(hd.color.CIELabColor.from_rgb(*rgb).value)
    return description
