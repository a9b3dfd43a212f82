"""The kept nodules as a DICOM Structured Report by template TID 1500, "Measurement Report".

A nodule with voxels has a group by TID 1411 with its segment and all its measurements, and a group by TID 1501 under
the same tracking identifiers with both axes as lines on the original slice: TID 1411 allows no coordinates with its
measurements, and viewers show a bidirectional measurement only from such lines. A finding of the detector alone has
the second kind of group only, with the center of its box.
"""

from collections.abc import Sequence

import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from LNHGLib.report import dicom_codes
from LNHGLib.report.case import ReportCase, ReportNodule
from LNHGLib.report.dicom_codes import MANUFACTURER, PRODUCT
from LNHGLib.report.dicom_seg import segmented
from LNHGLib.report.dicom_source import OriginalSeries

SERIES_NUMBER = 9002
DIGITS = 4
"""Digits after the point: numbers keep what nodules.csv shows."""
SAME_SLICE = 0.01

Ends = Sequence[Sequence[float]]


def make_report(
    case: ReportCase, series: OriginalSeries, segmentation: hd.seg.Segmentation | None
) -> hd.sr.Comprehensive3DSR:
    """Make the report object.

    Args:
        case: on the grid of the series, see `ReportCase.on`; with at least one finding.
        series: the slices that were segmented. Patient and study are taken from them.
        segmentation: from `dicom_seg.make_segmentation`; None where no finding has voxels.

    Returns:
        The object, to be written with `save_as`.
    """
    groups = [group for nodule in case.nodules for group in _Groups(nodule, case, series).make(segmentation)]
    content = hd.sr.MeasurementReport(
        observation_context=_observer(case),
        procedure_reported=dicom_codes.CHEST_CT,
        imaging_measurements=groups,
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
    report.SoftwareVersions = dicom_codes.version_of(case.report)
    schemes = report.get("CodingSchemeIdentificationSequence") or pydicom.Sequence()
    report.CodingSchemeIdentificationSequence = pydicom.Sequence([*schemes, dicom_codes.scheme()])
    return report


def _observer(case: ReportCase) -> hd.sr.ObservationContext:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(
            entropy_srcs=[PRODUCT, dicom_codes.version_of(case.report), dicom_codes.model_of(case.report)]
        ),
        name=f"{PRODUCT}, research use",
        manufacturer_name=MANUFACTURER,
        model_name=dicom_codes.model_of(case.report),
    )
    context = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return hd.sr.ObservationContext(observer_device_context=context)


class _Groups:
    """The measurement groups of one finding."""

    def __init__(self, nodule: ReportNodule, case: ReportCase, series: OriginalSeries) -> None:
        self.nodule, self.case, self.series = nodule, case, series
        self.tracking = hd.sr.TrackingIdentifier(
            uid=dicom_codes.tracking_uid(nodule, case, series.series_uid), identifier=dicom_codes.tracking_id(nodule)
        )
        self.algorithm = hd.sr.AlgorithmIdentification(
            name=PRODUCT,
            version=dicom_codes.version_of(case.report),
            parameters=[f"{name}: {value}" for name, value in dicom_codes.parameters_of(case.report).items()],
        )

    def make(self, segmentation: hd.seg.Segmentation | None) -> list[hd.sr.MeasurementsAndQualitativeEvaluations]:
        if self.nodule.measurement is None:
            return [self._box()]
        return [self._volume(segmentation), self._axes()]

    def _volume(self, segmentation: hd.seg.Segmentation) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
        number = segmented(self.case).index(self.nodule) + 1
        segment = hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(self.series.series_uid),
        )
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=segment,
            measurements=self._measurements(),
            qualitative_evaluations=[self._attenuation(), *self._origin()],
            **self._common(),
        )

    def _axes(self) -> hd.sr.MeasurementsAndQualitativeEvaluations:
        m = self.nodule.measurement
        axes = ((codes.SCT.LongAxis, m.long_axis_mm, m.long_axis_ends_lps_mm),)
        if m.short_axis_ends_lps_mm is not None:
            axes += ((codes.SCT.ShortAxis, m.short_axis_mm, m.short_axis_ends_lps_mm),)
        lines = [
            _number(name, value, codes.UCUM.Millimeter, coordinates=self._line(ends)) for name, value, ends in axes
        ]
        return hd.sr.MeasurementsAndQualitativeEvaluations(measurements=lines, **self._common())

    def _box(self) -> hd.sr.MeasurementsAndQualitativeEvaluations:
        where = self._point(self.nodule.center_lps_mm) if self.nodule.box_lps_mm else None
        score, unit = self.nodule.score, codes.UCUM.NoUnits
        numbers = [] if score is None else [_number(dicom_codes.SCORE, score, unit, coordinates=where)]
        return hd.sr.MeasurementsAndQualitativeEvaluations(
            measurements=numbers, qualitative_evaluations=self._origin(), **self._common()
        )

    def _common(self) -> dict:
        side = dicom_codes.SIDES.get(self.nodule.side)
        return {
            "tracking_identifier": self.tracking,
            "finding_type": dicom_codes.LUNG_NODULE,
            "finding_category": dicom_codes.ALTERED_STRUCTURE,
            "finding_sites": [hd.sr.FindingSite(dicom_codes.LUNG, laterality=side)],
            "algorithm_id": self.algorithm,
        }

    def _measurements(self) -> list[hd.sr.Measurement]:
        m, signal = self.nodule.measurement, self.nodule.heterogeneity
        mean, deviation = codes.SCT.Mean, codes.SCT.StandardDeviation
        numbers = [
            _number(codes.SCT.LongAxis, m.long_axis_mm, codes.UCUM.Millimeter),
            _number(codes.SCT.ShortAxis, m.short_axis_mm, codes.UCUM.Millimeter),
            _number(codes.SCT.Volume, m.volume_mm3, codes.UCUM.CubicMillimeter),
            _number(codes.DCM.AttenuationCoefficient, m.mean_hu, codes.UCUM.HounsfieldUnit, mean),
            _number(codes.DCM.AttenuationCoefficient, m.sd_hu, codes.UCUM.HounsfieldUnit, deviation),
        ]
        if self.nodule.score is not None:
            numbers.append(_number(dicom_codes.SCORE, self.nodule.score, codes.UCUM.NoUnits))
        if signal is not None:
            numbers.append(_number(dicom_codes.SIGNAL, signal["mean"], codes.UCUM.NoUnits, mean))
            numbers.append(_number(dicom_codes.SIGNAL, signal["sd"], codes.UCUM.NoUnits, deviation))
        return numbers

    def _attenuation(self) -> hd.sr.QualitativeEvaluation:
        value = dicom_codes.ATTENUATIONS[self.nodule.measurement.attenuation]
        return hd.sr.QualitativeEvaluation(dicom_codes.coded(dicom_codes.ATTENUATION_TYPE), dicom_codes.coded(value))

    def _origin(self) -> list[hd.sr.QualitativeEvaluation]:
        provenance = dicom_codes.PROVENANCES.get(self.nodule.provenance, dicom_codes.PROVENANCES["manual"])
        pairs = (
            (dicom_codes.PROVENANCE, provenance),
            (dicom_codes.MADE_BY, dicom_codes.READER_PARTS[self.nodule.algorithm_type]),
        )
        return [hd.sr.QualitativeEvaluation(*map(dicom_codes.coded, pair)) for pair in pairs]

    def _line(self, ends: Ends) -> hd.sr.CoordinatesForMeasurement | hd.sr.CoordinatesForMeasurement3D:
        """Return a line on its slice, in space where it does not lie within one slice."""
        index = self.series.grid.lps_to_index(np.array(ends))
        place = int(np.rint(index[0, 0]))
        if np.abs(index[:, 0] - place).max() > SAME_SLICE or not 0 <= place < len(self.series.slices):
            return hd.sr.CoordinatesForMeasurement3D(
                hd.sr.GraphicTypeValues3D.POLYLINE, np.array(ends), self.series.frame_of_reference_uid
            )
        columns_rows = index[:, [2, 1]] + 0.5  # the origin is the corner of the first pixel, not its center
        return hd.sr.CoordinatesForMeasurement(
            hd.sr.GraphicTypeValues.POLYLINE, columns_rows, _source(self.series.slices[place])
        )

    def _point(self, center: Sequence[float]) -> hd.sr.CoordinatesForMeasurement3D:
        return hd.sr.CoordinatesForMeasurement3D(
            hd.sr.GraphicTypeValues3D.POINT, np.array([center]), self.series.frame_of_reference_uid
        )


def _source(slice_: pydicom.Dataset) -> hd.sr.SourceImageForRegion:
    return hd.sr.SourceImageForRegion(slice_.SOPClassUID, slice_.SOPInstanceUID)


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
