"""What tells one CT from every other, wherever it lies and however it is stored: its voxels."""

import hashlib

import numpy as np

from LNHGLib.image.volume import LOWEST_HU, Volume, canonical


def voxels_sha256(volume: Volume) -> str:
    """Return the SHA-256 of a CT's values in HU, in the order of the patient's axes, and of how many there are.

    A CT has one whether it was read from DICOM or from a file of the same values, with its axes flipped or permuted,
    or lies in Slicer, where padding below -1024 HU is as it was stored.
    """
    array = canonical(volume).array
    if array.min() < LOWEST_HU:
        array = np.maximum(array, array.dtype.type(LOWEST_HU))
    whole = np.issubdtype(array.dtype, np.integer) or np.array_equal(array, np.rint(array))
    stored = np.ascontiguousarray(array, "<i2" if whole else "<f4")
    digest = hashlib.sha256(repr((stored.shape, stored.dtype.str)).encode())
    digest.update(stored)
    return digest.hexdigest()
