"""What tells one CT from every other, wherever it lies and however it is stored: its voxels."""

import hashlib

import numpy as np

from LNHGLib.image.volume import Volume, canonical


def voxels_sha256(volume: Volume) -> str:
    """Return the SHA-256 of a CT's values in HU, in the order of the patient's axes, and of how many there are.

    A CT has one whether it was read from DICOM or from a file of the same values, with its axes flipped or permuted.
    """
    array = canonical(volume).array
    if not np.issubdtype(array.dtype, np.integer) and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int16)
    stored = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(repr((stored.shape, stored.dtype.str)).encode())
    digest.update(stored)
    return digest.hexdigest()
