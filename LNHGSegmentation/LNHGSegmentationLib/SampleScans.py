"""Scans to try the module on, in Slicer's Sample Data: a chest drawn by this program, and Slicer's own CTChest."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import slicer

from LNHGSegmentationLib import Geometry, Overlay

CATEGORY = "Lung Nodules (LNHG)"
PHANTOM = "LNHGPhantom"
PHANTOM_SHA256 = (
    "b775868ff01e51a0e76a4d6ef71526651d58201b54258a9914335dbbf1cb9ef8"  # of the voxels, little-endian int16
)
CT_CHEST = "CTChest"
MODULE_FOLDER = Path(__file__).parents[1]
THUMBNAIL = MODULE_FOLDER / "Resources" / "Thumbnails" / "LNHGPhantom.png"


def register() -> None:
    """Offer the scans in Slicer's module Sample Data."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=PHANTOM,
        uris=(MODULE_FOLDER / "LNHGLib" / "phantom.py").as_uri(),  # draws it: nothing is downloaded
        fileNames=f"{PHANTOM}.nrrd",
        nodeNames=PHANTOM,
        customDownloader=loadPhantom,
        thumbnailFileName=str(THUMBNAIL),
        checksums=f"SHA256:{PHANTOM_SHA256}",
    )
    chest = SampleData.SampleDataLogic().sourceForSampleName(CT_CHEST)
    ours = slicer.modules.sampleDataSources[CATEGORY]
    if chest is not None and chest not in ours:
        ours.append(chest)


def loadPhantom(_source: object = None) -> slicer.vtkMRMLScalarVolumeNode:
    """Draw the synthetic chest CT and show it; takes seconds and needs no network.

    :return: the volume node.
    """
    from LNHGLib.phantom import make_phantom  # here, as it would slow down Slicer's start

    with slicer.util.WaitCursor():
        volume = make_phantom().volume
    digest = checksum(volume.array)
    if digest != PHANTOM_SHA256:
        logging.warning(
            "LNHG: the drawn chest differs from the published one by rounding of this computer (SHA-256 %s, expected "
            "%s): results may differ a little from the documentation.",
            digest,
            PHANTOM_SHA256,
        )
    node = _show(volume.array, volume.grid.affine, PHANTOM)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def partOfPhantom(marginMm: float) -> tuple[slicer.vtkMRMLScalarVolumeNode, np.ndarray]:
    """Draw the slices around the largest nodule of the synthetic chest.

    :param marginMm: above and below the nodule's center.
    :return: the volume node, and the nodule's center in LPS mm.
    """
    from LNHGLib.phantom import make_phantom

    phantom = make_phantom()
    grid, nodule = phantom.volume.grid, max(phantom.nodules, key=lambda nodule: nodule["diameter_mm"])
    center, reach = np.array(nodule["centre_lps"]), round(marginMm / grid.spacing_mm[0])
    slice_ = round(float(grid.lps_to_index(center)[0]))
    first, end = max(slice_ - reach, 0), min(slice_ + reach + 1, grid.shape[0])
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_lps((first, 0, 0))
    return _show(phantom.volume.array[first:end], affine, f"{PHANTOM}Part"), center


def _show(array: np.ndarray, zyxToLPS: np.ndarray, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a CT of the core to the scene, in the lung window."""
    node = Geometry.addVolume(array, zyxToLPS, name)
    Overlay.setUpCT(node)
    return node


def checksum(array: np.ndarray) -> str:
    """Return the SHA-256 of voxels."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<i2").tobytes()).hexdigest()
