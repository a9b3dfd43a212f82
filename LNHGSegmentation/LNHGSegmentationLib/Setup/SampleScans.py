"""Scans to try the module on, in Slicer's Sample Data: a chest drawn by this program, and Slicer's own CTChest."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import slicer

from LNHGSegmentationLib.Paths import MODULE_FOLDER
from LNHGSegmentationLib.Scene import Geometry, Overlay

CATEGORY = "Lung Nodules (LNHG)"
PHANTOM = "LNHGPhantom"
PHANTOM_SHA256 = (
    "a1482e47c98885771ba792c981942b58f2ff34fdcf8dd2e0adee4e1f824f889c"  # of the voxels, little-endian int16
)
FILE_NAME = f"{PHANTOM}-{PHANTOM_SHA256[:8]}.nrrd"  # in Slicer's cache; another chest has another name
CT_CHEST = "CTChest"
THUMBNAIL = MODULE_FOLDER / "Resources" / "Thumbnails" / "LNHGPhantom.png"


def register() -> None:
    """Offer the scans in Slicer's module Sample Data, to its buttons and to its ``downloadSample``."""
    import SampleData

    class DrawnSource(SampleData.SampleDataSource):
        """A file that is drawn when somebody asks where it is: Slicer uses custom downloaders for its buttons alone."""

        @property
        def uris(self) -> list[str]:
            return [drawnFile().as_uri()]

        @uris.setter
        def uris(self, _uris: list[str]) -> None:
            """Take none; Slicer's own class sets one."""

        def __str__(self) -> str:
            return f"{CATEGORY}: {PHANTOM}"  # Slicer compares sources by their text, which must draw nothing

    phantom = DrawnSource(
        sampleName=PHANTOM,
        uris="",
        fileNames=FILE_NAME,
        nodeNames=PHANTOM,
        customDownloader=loadPhantom,
        thumbnailFileName=str(THUMBNAIL),
    )
    chest = SampleData.SampleDataLogic().sourceForSampleName(CT_CHEST)
    slicer.modules.sampleDataSources[CATEGORY] = [phantom] if chest is None else [phantom, chest]


def drawnFile() -> Path:
    """Return the synthetic chest CT as a file in Slicer's cache; draws it if it is not there.

    Raises:
        DiskError: It cannot be written.
    """
    from LNHGLib.files import atomic
    from LNHGLib.image.volume import write_image

    cache = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory())
    if not (cache / FILE_NAME).exists():
        volume = _draw()
        with atomic.explain_disk_errors(cache, "The synthetic chest CT"):
            cache.mkdir(parents=True, exist_ok=True)
            with atomic.temporary_folder(cache) as folder:
                write_image(volume.array, volume.grid, folder / FILE_NAME)
                (folder / FILE_NAME).replace(cache / FILE_NAME)
    return cache / FILE_NAME


def loadPhantom(_source: object = None) -> slicer.vtkMRMLScalarVolumeNode:
    """Draw the synthetic chest CT and show it; takes seconds and needs no network.

    Returns:
        The volume node.
    """
    volume = _draw()
    node = _show(volume.array, volume.grid.affine, PHANTOM)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def _draw():
    """Return the synthetic chest CT, and tell where it is not the published one."""
    from LNHGLib.phantom.chest import make_phantom  # here, as it would slow down Slicer's start

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
    return volume


def partOfPhantom(marginMm: float) -> tuple[slicer.vtkMRMLScalarVolumeNode, np.ndarray]:
    """Draw the slices around the largest nodule of the synthetic chest.

    Args:
        marginMm: Above and below the nodule's center.

    Returns:
        The volume node, and the nodule's center in LPS mm.
    """
    from LNHGLib.image.boxes import whole_box
    from LNHGLib.phantom.chest import make_phantom

    phantom = make_phantom()
    grid, nodule = phantom.volume.grid, max(phantom.nodules, key=lambda nodule: nodule["diameter_mm"])
    center, reach = np.array(nodule["center_lps_mm"]), round(marginMm / grid.spacing_mm[0])
    slice_ = round(float(grid.lps_to_index(center)[0]))
    first, end = max(slice_ - reach, 0), min(slice_ + reach + 1, grid.shape[0])
    box = (slice(first, end), *whole_box(grid.shape)[1:])
    return _show(phantom.volume.array[box], grid.crop(box).affine, f"{PHANTOM}Part"), center


def _show(array: np.ndarray, zyxToLPS: np.ndarray, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a CT of the core to the scene, in the lung window."""
    node = Geometry.addVolume(array, zyxToLPS, name)
    Overlay.setUpCT(node)
    return node


def checksum(array: np.ndarray) -> str:
    """Return the SHA-256 of voxels."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<i2").tobytes()).hexdigest()
