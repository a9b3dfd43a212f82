"""The kept nodules as a DICOM Structured Report by template TID 1500, "Measurement Report".

A nodule with voxels has a group by TID 1411 with its segment and all its measurements, and a group by TID 1501 under
the same tracking identifiers with both axes as lines on the original slice: TID 1411 allows no coordinates with its
measurements, and viewers show a bidirectional measurement only from such lines. A finding of the detector alone has
the second kind of group only, with the center of its box.
"""

import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from LNHGLib.measurement import score_scale
from LNHGLib.report import dicom_codes
from LNHGLib.report.case import ReportCase, ReportNodule
from LNHGLib.report.dicom_codes import MANUFACTURER, PRODUCT
from LNHGLib.report.dicom_seg import segmented
from LNHGLib.report.dicom_source import OriginalSeries

SERIES_NUMBER = 9002
DIGITS = 4
"""Digits after the point: numbers keep what nodules.csv shows."""
SAME_SLICE = 0.01


def make_report(
    case: ReportCase, series: OriginalSeries, segmentation: hd.seg.Segmentation | None
) -> hd.sr.Comprehensive3DSR:
    """Make the report object.

    Args:
        case: on the grid of the series, see `ReportCase.on`; with at least one finding.
        series: the slices that were segmented. Patient and study are taken from them.
        segmentation: from `dicom_seg.make_segmentation`; None where no finding has voxels, or it could not be made:
            the measurements then stand without their segments.

    Returns:
        The object, to be written with `save_as`.
    """
    model, version = dicom_codes.model_of(case.report), dicom_codes.version_of(case.report)
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[PRODUCT, version, model]),
        name=f"{PRODUCT}, research use",
        manufacturer_name=MANUFACTURER,
        model_name=model,
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=dicom_codes.CHEST_CT,
        imaging_measurements=[
            group for nodule in case.nodules for group in _measurement_groups(nodule, case, series, segmentation)
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    report = hd.sr.Comprehensive3DSR(
        evidence=[*series.slices, *([segmentation] if segmentation else [])],
        content=content[0],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    report.SeriesDescription = "LNHG measurements (research use)"
    report.ManufacturerModelName = PRODUCT
    report.SoftwareVersions = version
    schemes = report.get("CodingSchemeIdentificationSequence") or pydicom.Sequence()
    report.CodingSchemeIdentificationSequence = pydicom.Sequence([*schemes, dicom_codes.scheme()])
    return report


def _measurement_groups(
    nodule: ReportNodule, case: ReportCase, series: OriginalSeries, segmentation: hd.seg.Segmentation | None
) -> list[hd.sr.MeasurementsAndQualitativeEvaluations]:
    """Return the measurement groups of a finding: by TID 1411 and 1501 with voxels, by TID 1501 alone without."""
    common = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=dicom_codes.tracking_uid(nodule, case, series.series_uid), identifier=dicom_codes.tracking_id(nodule)
        ),
        "finding_type": dicom_codes.LUNG_NODULE,
        "finding_category": dicom_codes.ALTERED_STRUCTURE,
        "finding_sites": [hd.sr.FindingSite(dicom_codes.LUNG, laterality=dicom_codes.SIDES.get(nodule.side))],
        "algorithm_id": hd.sr.AlgorithmIdentification(
            name=PRODUCT,
            version=dicom_codes.version_of(case.report),
            parameters=[f"{name}: {value}" for name, value in dicom_codes.parameters_of(case.report).items()],
        ),
    }
    provenance = dicom_codes.PROVENANCES.get(nodule.provenance, dicom_codes.PROVENANCES["manual"])
    origin = [
        _evaluation(dicom_codes.PROVENANCE, provenance),
        _evaluation(dicom_codes.READER_PART, dicom_codes.READER_PARTS[nodule.algorithm_type]),
    ]
    m = nodule.measurement
    if m is None:
        where = None
        if nodule.box_lps_mm:
            center = np.array([nodule.center_lps_mm])
            kind = hd.sr.GraphicTypeValues3D.POINT
            where = hd.sr.CoordinatesForMeasurement3D(kind, center, series.frame_of_reference_uid)
        numbers = [] if nodule.score is None else [_score(nodule.score, case.score_scale, where)]
        return [
            hd.sr.MeasurementsAndQualitativeEvaluations(measurements=numbers, qualitative_evaluations=origin, **common)
        ]
    lines = _axes(nodule, series)
    numbers = _measurements(nodule, case.score_scale)
    answers = [_evaluation(dicom_codes.ATTENUATION_TYPE, dicom_codes.ATTENUATIONS[m.attenuation]), *origin]
    if segmentation is None:
        named = [line.name for line in lines]
        numbers = [*lines, *(number for number in numbers if number.name not in named)]
        return [
            hd.sr.MeasurementsAndQualitativeEvaluations(measurements=numbers, qualitative_evaluations=answers, **common)
        ]
    segment = hd.sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=segmented(case).index(nodule) + 1,
        source_series=hd.sr.SourceSeriesForSegmentation(series.series_uid),
    )
    volume = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=segment,
        measurements=numbers,
        qualitative_evaluations=answers,
        **common,
    )
    return [volume, hd.sr.MeasurementsAndQualitativeEvaluations(measurements=lines, **common)]


def _axes(nodule: ReportNodule, series: OriginalSeries) -> list[hd.sr.Measurement]:
    """Return a measured nodule's axes, each with its line on a slice, or in space where it lies within none."""
    m, axes = nodule.measurement, []
    for name, value, ends in (
        (codes.SCT.LongAxis, m.long_axis_mm, m.long_axis_ends_lps_mm),
        (codes.SCT.ShortAxis, m.short_axis_mm, m.short_axis_ends_lps_mm),
    ):
        if ends is None:
            continue
        along = series.grid.lps_to_index(np.array(ends))[:, 0]
        number = int(np.rint(along[0]))
        if np.abs(along - number).max() > SAME_SLICE or not 0 <= number < len(series.files):
            kind = hd.sr.GraphicTypeValues3D.POLYLINE
            line = hd.sr.CoordinatesForMeasurement3D(kind, np.array(ends), series.frame_of_reference_uid)
        else:
            rows_columns = series.found.place.pixels_of(np.array(ends), number)
            columns_rows = rows_columns[:, ::-1] + 0.5  # the origin is the corner of the first pixel, not its center
            image, frame = series.image(number)
            source = hd.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, frame)
            line = hd.sr.CoordinatesForMeasurement(hd.sr.GraphicTypeValues.POLYLINE, columns_rows, source)
        axes.append(_number(name, value, codes.UCUM.Millimeter, coordinates=line))
    return axes


def _measurements(nodule: ReportNodule, scale: str) -> list[hd.sr.Measurement]:
    """Return a measured nodule's numbers with their units."""
    m, signal = nodule.measurement, nodule.heterogeneity
    mean, deviation = codes.SCT.Mean, codes.SCT.StandardDeviation
    numbers = [
        _number(codes.SCT.LongAxis, m.long_axis_mm, codes.UCUM.Millimeter),
        _number(codes.SCT.ShortAxis, m.short_axis_mm, codes.UCUM.Millimeter),
        _number(codes.SCT.Volume, m.volume_mm3, codes.UCUM.CubicMillimeter),
        _number(codes.DCM.AttenuationCoefficient, m.mean_hu, codes.UCUM.HounsfieldUnit, mean),
        _number(codes.DCM.AttenuationCoefficient, m.sd_hu, codes.UCUM.HounsfieldUnit, deviation),
    ]
    if nodule.score is not None:
        numbers.append(_score(nodule.score, scale))
    if signal is not None:
        numbers.append(_number(dicom_codes.SIGNAL, signal["mean"], codes.UCUM.NoUnits, mean))
        numbers.append(_number(dicom_codes.SIGNAL, signal["sd"], codes.UCUM.NoUnits, deviation))
    return numbers


def _score(score: float, scale: str, coordinates: hd.sr.CoordinatesForMeasurement3D | None = None) -> hd.sr.Measurement:
    """Return a score: a probability by DICOM's own concept in percent, a model's own number by the project's."""
    if scale == score_scale.PROBABILITY:
        return _number(dicom_codes.PROBABILITY, 100 * score, codes.UCUM.Percent, coordinates=coordinates)
    return _number(dicom_codes.SCORE, score, codes.UCUM.NoUnits, coordinates=coordinates)


def _evaluation(name: Code, value: Code) -> hd.sr.QualitativeEvaluation:
    return hd.sr.QualitativeEvaluation(dicom_codes.coded(name), dicom_codes.coded(value))


def _number(
    name: Code,
    value: float,
    unit: Code,
    derivation: Code | None = None,
    coordinates: hd.sr.CoordinatesForMeasurement | hd.sr.CoordinatesForMeasurement3D | None = None,
) -> hd.sr.Measurement:
    return hd.sr.Measurement(
        name=dicom_codes.coded(name),
        value=round(float(value), DIGITS),
        unit=unit,
        derivation=derivation,
        referenced_coordinates=None if coordinates is None else [coordinates],
    )
