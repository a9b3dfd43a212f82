"""Cubes with a nodule, and what the networks are to have said of them, as `calibrate.predict_crops` gives them."""

import numpy as np
from LNHGLib.image.boxes import box_intersection, whole_box
from LNHGLib.image.volume import Grid
from LNHGLib.segmentation.ensemble import Ensemble, EnsemblePatch, field_around
from LNHGLib.segmentation.pipeline import PreparedScan
from LNHGLib.segmentation.preprocessing import normalize
from LNHGTrainingLib.data.crops import LabeledVolume
from LNHGTrainingLib.release.calibrate import CropOutputs

Z, Y, X = np.mgrid[:50, :50, :50]
CARD = {
    "generator": {"threshold": 0.1},
    "detector": {"slice_step_mm": 1},
    "fusion": {"min_volume_mm3": 14.0, "weight": 0.5},
    "threshold": 0.5,
}


def ball(center, radius):
    return (Z - center[0]) ** 2 + (Y - center[1]) ** 2 + (X - center[2]) ** 2 <= radius**2


class _Known(Ensemble):
    """What is to have been said of the fields around candidates."""

    def __init__(self, image):
        super().__init__([])
        self.image = image

    def predict_at(self, ct_norm, boxes, **_options):
        for box in boxes:
            inside = box_intersection(field_around(box), whole_box(ct_norm.shape))
            yield EnsemblePatch(inside, self.image[inside])


def cube(nodule_image, boxes, known=None, ensemble_image=None):
    """A cube of lung with a nodule of 5 mm radius in its middle, and what the networks are to have said of it.

    `nodule_image` is the first member's, and the mean of all unless `ensemble_image` is given.
    """
    nodule = ball((25, 25, 25), 5)
    hu = np.where(nodule | (nodule_image > 0), 0, -850).astype(np.int16)
    crop = LabeledVolume(hu, nodule, np.ones(hu.shape, bool) if known is None else known, "p", {})
    work = PreparedScan(Grid.aligned(hu.shape, (1, 1, 1), (0, 0, 0)), normalize(hu), np.ones(hu.shape, bool))
    image = nodule_image.astype(np.float32)
    mean = image if ensemble_image is None else ensemble_image.astype(np.float32)
    return CropOutputs(crop, image, mean, np.array(boxes, float).reshape(-1, 6), work, _Known(mean))


def boxes_around(center, radius, score):
    z, y, x = center
    return [[z + d, y - radius, x - radius, y + radius, x + radius, score] for d in (-1, 0, 1)]
