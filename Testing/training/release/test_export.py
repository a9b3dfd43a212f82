"""Weights in float16: rounded as little as can be, and no outline of the bundled model changes by it."""

import hashlib
import json
import shutil

import numpy as np
import torch
from LNHGLib.models import folder
from LNHGLib.segmentation.pipeline import load_ensemble
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.progress import Monitor
from LNHGTrainingLib.evaluation.crops import central_nodule
from LNHGTrainingLib.evaluation.metrics import dice
from LNHGTrainingLib.release.export import rounded
from safetensors.torch import save_file


def test_counters_and_what_float16_cannot_hold_stay():
    weights = {"w": torch.tensor([0.1, 3e-5]), "count": torch.tensor(70_000), "large": torch.tensor([1.0, 1e6])}
    stored = rounded(weights)
    assert [value.dtype for value in stored.values()] == [torch.float16, torch.int64, torch.float32]
    torch.testing.assert_close(stored["w"].float(), weights["w"], rtol=1e-3, atol=1e-7)
    assert torch.equal(stored["large"], weights["large"])
    assert stored["count"] == 70_000


def copy_in_half(model, target):
    """The same model with its weights in float16."""
    shutil.copytree(model.folder, target)
    card = json.loads((target / folder.CARD).read_text())
    for part in ("generator", "second_generator", "detector"):
        file = target / card[part]["weights"]
        save_file(rounded(model.weights(part)), file)
        card["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (target / folder.CARD).write_text(json.dumps(card))
    return folder.load(target)


def test_the_bundled_model_in_float16_outlines_the_same(tmp_path):
    model = folder.load("lnhg-1mm")
    half = copy_in_half(model, tmp_path / "half")
    files = (half.folder / half.card[part]["weights"] for part in ("generator", "second_generator", "detector"))
    assert sum(file.stat().st_size for file in files) < 8.3e6
    z, y, x = np.ogrid[:50, :50, :50]
    hu = np.random.default_rng(0).normal(-850, 20, (50, 50, 50))
    hu[(z - 25) ** 2 + (y - 24) ** 2 / 2 + (x - 25) ** 2 <= 40] = 20
    hu[24:27, 25:, 24:27] = 40
    ct = normalize(hu.astype(np.int16), model.spec.window_hu)
    images = [load_ensemble(one, torch.device("cpu"), Monitor()).predict_center(ct) for one in (model, half)]
    outlines = [central_nodule(image, *model.spec.generator.outlining) for image in images]
    assert outlines[0].sum() > 150
    assert 1 - dice(*outlines) < 1e-3
    np.testing.assert_allclose(images[1], images[0], atol=0.01)
