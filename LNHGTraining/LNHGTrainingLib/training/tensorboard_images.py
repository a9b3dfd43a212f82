"""Example pictures for TensorBoard, RGB (H, W, 3) uint8: what a network makes of crops, and the reference."""

from collections.abc import Sequence

import numpy as np
import torch
from LNHGLib.segmentation.ensemble import Ensemble, Member
from LNHGLib.segmentation.preprocessing import normalize
from torch import nn

from LNHGTrainingLib.baselines.ct_gan import SIDE, hide
from LNHGTrainingLib.data.crops import CUBE, LabeledVolume
from LNHGTrainingLib.data.detector_batches import slice_boxes
from LNHGTrainingLib.data.injector_batches import InjectorCubes
from LNHGTrainingLib.training.validate import detect

EXAMPLES = 4
ENLARGE = 3
MIDDLE = CUBE // 2


def segmenter_examples(generator: nn.Module, crops: Sequence[LabeledVolume], window_hu: list) -> np.ndarray:
    """Show the middle slices of crops in rows: CT, the nodule image to reach, the generator's.

    Args:
        generator: predicts the nodule image.
        crops: of which the first are shown.
        window_hu: HU that become 0 and 1.
    """
    rows, alone = [], Ensemble([Member.of(generator.eval())])
    for crop in crops[:EXAMPLES]:
        ct = normalize(crop.hu, window_hu)
        image = alone.predict_center(ct)[MIDDLE]
        rows.append(np.hstack([ct[MIDDLE], ct[MIDDLE] * crop.mask[MIDDLE], image]))
    return _gray(np.vstack(rows))


def detector_examples(detector: nn.Module, crops: Sequence[LabeledVolume], window_hu: list, step: int) -> np.ndarray:
    """Show the middle slices of crops side by side: the reference's boxes green, found ones red with their scores.

    Args:
        detector: predicts the boxes.
        crops: of which the first are shown.
        window_hu: HU that become 0 and 1.
        step: slices between two that the detector sees.
    """
    pictures = []
    for crop in crops[:EXAMPLES]:
        found = detect(detector, crop.hu, window_hu, step)
        found = found[(found[:, 0] > MIDDLE - step) & (found[:, 0] <= MIDDLE)]
        picture = _boxes(_gray(normalize(crop.hu[MIDDLE], window_hu)), slice_boxes(crop.mask[MIDDLE], 1), "lime")
        boxes, scores = found[:, [2, 1, 4, 3]], [f"{score:.2f}" for score in found[:, 5]]
        pictures.append(_boxes(picture, boxes, "red", scores))
    return np.hstack(pictures)


def injector_examples(injector: nn.Module, cubes: InjectorCubes) -> np.ndarray:
    """Show the middle slices of equalized cubes in rows: CT, what the injector sees, what it makes of it.

    Args:
        injector: of CT-GAN.
        cubes: of which the first are shown.
    """
    rows, device = [], next(injector.parameters()).device
    for number in range(min(EXAMPLES, len(cubes.crops))):
        cube = torch.from_numpy(cubes.cube(number))[None, None].to(device)
        shown = [part[0, 0, SIDE // 2].cpu().numpy() for part in (cube, hide(cube), injector.eval()(hide(cube)))]
        rows.append(np.hstack(shown))
    return _gray((np.vstack(rows) + 1) / 2)


def _gray(image: np.ndarray) -> np.ndarray:
    large = np.kron(image, np.ones((ENLARGE, ENLARGE)))
    return np.repeat((255 * large.clip(0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def _boxes(picture: np.ndarray, boxes: np.ndarray | list, color: str, names: list[str] | None = None) -> np.ndarray:
    if len(boxes) == 0:
        return picture
    from torchvision.utils import draw_bounding_boxes  # takes seconds to load, and the segmenter has no boxes

    image = torch.from_numpy(picture).permute(2, 0, 1)
    corners = ENLARGE * torch.as_tensor(np.asarray(boxes, np.float32))
    return draw_bounding_boxes(image, corners, names, color).permute(1, 2, 0).numpy()
