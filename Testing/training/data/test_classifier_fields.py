"""The fields that the classifier is trained on do not tell whether they were cut from a crop or from a whole scan."""

from pathlib import Path

import numpy as np
import pytest
from LNHGLib.segmentation.classification import BALL, FIELD, RADIUS, candidate_field
from LNHGLib.segmentation.preprocessing import normalize
from LNHGTrainingLib.data.crops import load_crops
from LNHGTrainingLib.data.scans import read_scans
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

WINDOW = (-1000, 400)
pytestmark = pytest.mark.slow
RIM = BALL & (ndimage.distance_transform_edt(BALL) <= 3)
"""The outermost 3 mm of what the classifier sees."""


def inside(place: np.ndarray, shape: tuple) -> bool:
    return bool((np.minimum(place, np.array(shape) - 1 - place) >= RADIUS).all())


def border_statistics(values: np.ndarray) -> list[float]:
    """Brightness, spread, emptiness, and how far the values are from multiples of 8 and of 32 HU."""
    rounding = [float(np.abs(values / step - np.rint(values / step)).mean()) for step in (8 / 1400, 32 / 1400)]
    return [values.mean(), values.std(), *np.percentile(values, [5, 25, 75, 95]), (values == 0).mean(), *rounding]


def places(folder: Path, rng: np.random.Generator, cut: bool) -> list[tuple]:
    """Return HU, place and kind (0: crop, 1: scan) of places in crops, and in the lungs of whole scans.

    With `cut`, fields in crops may be cut by the border of the crop, against the rule of `data.candidates`.
    """
    table, found = folder / "crops" / "luna16_crops.csv", []
    crops = load_crops(folder / "crops" / "luna16_crops.h5", table, [1, 2, 3, 4], 3)
    for number in rng.permutation(len(crops))[:350]:
        crop = crops[int(number)]
        place = np.array(crop.hu.shape) // 2 + rng.integers(-4, 5, 3) + 14 * cut
        if cut or inside(place, crop.hu.shape):
            found.append((crop.hu, place, 0))
    for scan in read_scans(folder / "scans" / "lidc_scans.h5", table, range(5)):
        for flat in rng.choice(np.flatnonzero(scan.lungs), 500):
            place = np.array(np.unravel_index(flat, scan.lungs.shape))
            if inside(place, scan.hu.shape):
                found.append((scan.hu, place, 1))
    return found


def matched(fields: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Pair each field of a crop with one of a scan that holds as much lung; return the numbers of all."""
    lung = np.array([(field[BALL] < 500 / 1400).mean() for field in fields])
    free, taken = np.flatnonzero(kinds == 1), []
    for number in np.flatnonzero(kinds == 0):
        nearest = int(np.argmin(np.abs(lung[free] - lung[number])))
        if abs(lung[free[nearest]] - lung[number]) < 0.03:
            taken += [number, free[nearest]]
            free = np.delete(free, nearest)
    return np.array(taken)


def field_of(hu: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Cut a field out of its surroundings: a whole scan is not normalized for one place."""
    low = np.maximum(place - FIELD, 0)
    near = hu[tuple(slice(a, b) for a, b in zip(low, place + FIELD, strict=True))]
    return candidate_field(normalize(near, WINDOW), place - low, WINDOW)


def area_under_curve(folder: Path, cut: bool) -> float:
    found = places(folder, np.random.default_rng(5), cut)
    fields = np.stack([field_of(hu, place) for hu, place, _ in found])
    kinds = np.array([kind for *_, kind in found])
    chosen = matched(fields, kinds)
    assert len(chosen) > 400
    statistics = np.array([border_statistics(field[RIM].astype(float)) for field in fields[chosen]])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_predict(model, statistics, kinds[chosen], cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(kinds[chosen], scores))


def test_the_rim_of_fields_does_not_tell_crops_from_scans(data_dir):
    assert area_under_curve(data_dir, cut=False) < 0.6


def test_the_rim_of_cut_fields_would_tell(data_dir):
    assert area_under_curve(data_dir, cut=True) > 0.7
