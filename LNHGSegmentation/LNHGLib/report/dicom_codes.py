"""The codes and identifiers that DICOM SEG and SR have in common."""

import hashlib
from collections.abc import Mapping
from typing import Any

import highdicom as hd
import pydicom
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from LNHGLib import __version__
from LNHGLib.measurement import score_scale
from LNHGLib.report.case import ReportCase, ReportNodule

SCHEME = "99LNHG"
"""Coding scheme of what no standard has a code for."""

MANUFACTURER = PRODUCT = "LNHG"
LUNG_NODULE = Code("786838002", "SCT", "Lung nodule")
ALTERED_STRUCTURE = Code("49755003", "SCT", "Morphologically Altered Structure")
LUNG = codes.SCT.Lung
SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
CHEST_CT = Code("24627-2", "LN", "CT Chest")

ATTENUATION_TYPE = Code("ATTENUATION", SCHEME, "Attenuation type")
ATTENUATIONS = {
    "solid": Code("SOLID", SCHEME, "Solid"),
    "part-solid": Code("PARTSOLID", SCHEME, "Part-solid"),
    "ground-glass": codes.DCM.GroundGlassOpacity,
    "calcified": Code("CALCIFIED", SCHEME, "Calcified"),
}
PROVENANCE = Code("PROVENANCE", SCHEME, "Provenance")
PROVENANCES = {
    "fused": Code("FUSED", SCHEME, "Segmenter and detector agree"),
    "segmenter": Code("SEGMENTER", SCHEME, "Segmenter only"),
    "detector-box": Code("DETECTORBOX", SCHEME, "Detector only, not segmented"),
    "manual": Code("MANUAL", SCHEME, "Drawn by hand"),
}
READER_PART = Code("READER", SCHEME, "Part of the reader")
READER_PARTS = {
    "AUTOMATIC": Code("NONE", SCHEME, "None, found and outlined by the algorithm"),
    "SEMIAUTOMATIC": Code("CORRECTED", SCHEME, "Placed or corrected by the reader"),
    "MANUAL": Code("DRAWN", SCHEME, "Drawn by the reader"),
}
SCORE = Code("SCORE", SCHEME, "Detection score")
PROBABILITY = codes.DCM.CertaintyOfFinding
"""The likelihood that a finding is what it is called, in percent."""
SIGNAL = Code("SIGNAL", SCHEME, "Intra-nodular signal, relative")


def model_of(report: Mapping[str, Any]) -> str:
    """Return the model's name with the first digits of a hash over all its files."""
    model = report.get("model") or {}
    digest = hashlib.sha256(str(sorted((model.get("sha256") or {}).items())).encode()).hexdigest()[:12]
    return f"{model.get('name', 'unknown model')} ({digest})" if model.get("sha256") else model.get("name", "unknown")


def version_of(report: Mapping[str, Any]) -> str:
    """Return the version of LNHG that made the result."""
    return str((report.get("versions") or {}).get("lnhg", __version__))


def parameters_of(report: Mapping[str, Any]) -> dict[str, str]:
    """Return what the algorithm was run with, and what its scores mean."""
    threshold = (report.get("options") or {}).get("threshold")
    parameters = {"model": model_of(report), "score scale": score_scale.scale_of(report)}
    return parameters if threshold is None else parameters | {"threshold": f"{threshold:g}"}


def tracking_id(nodule: ReportNodule) -> str:
    """Return the name that follows a finding through DICOM objects."""
    return f"LNHG nodule {nodule.number}"


def tracking_uid(nodule: ReportNodule, case: ReportCase, series_uid: str) -> str:
    """Return the identifier that follows a finding: the same whenever the same result is written again.

    Args:
        nodule: the finding.
        case: the finding's case.
        series_uid: SeriesInstanceUID of the original series.
    """
    if nodule.tracking_uid:
        return nodule.tracking_uid
    return generate_uid(entropy_srcs=[series_uid, model_of(case.report), str(nodule.number), repr(nodule.box_lps_mm)])


def scheme() -> pydicom.Dataset:
    """Return the item of the Coding Scheme Identification Sequence (0008,0110) for the project's own codes."""
    item = pydicom.Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Codes of LNHG, lung nodules"
    item.CodingSchemeVersion = "1"
    return item


def coded(code: Code) -> hd.sr.CodedConcept:
    """Return a code as highdicom stores it."""
    return hd.sr.CodedConcept(code.value, code.scheme_designator, code.meaning)
