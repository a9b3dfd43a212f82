"""Torch or OpenVINO: which one is taken, that both find the same, and that a CPU with OpenVINO needs no torch."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from LNHGLib.__main__ import main
from LNHGLib.batch.segment_case import SegmentationSpec
from LNHGLib.errors import InputError
from LNHGLib.image.volume import write_image
from LNHGLib.models import folder as models
from LNHGLib.models import openvino_network
from LNHGLib.models.folder import OPENVINO, OPENVINO_BF16
from LNHGLib.segmentation import pipeline, runtime
from LNHGLib.segmentation.ensemble import Ensemble
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.segmentation.runtime import choose_runtime
from tiny_model import tiny_chest, with_stand_ins, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny", second=True, classifier=True)


@pytest.fixture(scope="module")
def paper_model(tmp_path_factory):
    """Return a model with a network that OpenVINO does not build here."""
    model = write_model(tmp_path_factory.mktemp("model") / "tiny")
    card = model.card | {"detector": model.card["detector"] | {"backbone": "resnet50-fpn"}}
    (model.folder / "model.json").write_text(json.dumps(card))
    return models.read(model.folder)


@pytest.fixture
def a_gpu(monkeypatch):
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    monkeypatch.setattr(runtime, "choose_device", lambda name: torch.device("cuda:0" if name == "auto" else name))


@pytest.fixture
def no_openvino(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == OPENVINO else find(name, *more)
    )


def test_auto_is_openvino_on_a_cpu(model, monkeypatch):
    monkeypatch.setattr(runtime, "has_gpu", lambda: False)
    assert choose_runtime("auto", model) == choose_runtime("cpu", model) == OPENVINO


def test_auto_is_torch_on_a_gpu_but_not_for_who_asks_for_the_cpu(model, a_gpu):
    assert choose_runtime("auto", model) == torch.device("cuda:0")
    assert choose_runtime("cpu", model) == OPENVINO
    assert choose_runtime("auto", model, OPENVINO) == OPENVINO


def test_auto_is_torch_where_openvino_is_missing_or_does_not_know_a_network(model, paper_model, no_openvino):
    assert choose_runtime("cpu", model) == torch.device("cpu")
    assert choose_runtime("cpu", paper_model) == torch.device("cpu")


def test_a_u_net_of_slabs_is_left_to_torch(model):
    spec = {"kind": "unet", "width": 4, "slab": 3}
    assert not models.Model(model.folder, model.card | {"generator": model.card["generator"] | spec}).runs_on_openvino()


@pytest.mark.parametrize(
    ("part", "kind"),
    [("generator", "unet-2d"), ("generator", "inception-unet"), ("generator", "nasnet-gcn"), ("classifier", "mgi-cnn")],
)
def test_a_network_of_another_document_is_left_to_torch(model, part, kind):
    other = models.Model(model.folder, model.card | {part: model.card[part] | {"kind": kind}})
    assert choose_runtime("cpu", other) == torch.device("cpu")
    with pytest.raises(InputError, match="'tiny' has a network that is not built for OpenVINO"):
        choose_runtime("cpu", other, OPENVINO)


def test_who_asks_for_torch_gets_it(model):
    assert choose_runtime("cpu", model, "torch") == torch.device("cpu")


def test_what_was_chosen_before_stays(model):
    assert choose_runtime(OPENVINO, model, "torch") == OPENVINO
    assert choose_runtime(torch.device("cpu"), model) == torch.device("cpu")


@pytest.fixture
def a_cpu(request, monkeypatch):
    """A CPU that computes in bfloat16 or not."""
    monkeypatch.setattr(openvino_network, "has_bfloat16", lambda: request.param)


@pytest.mark.parametrize(
    ("a_cpu", "measured", "exact", "expected"),
    [(True, True, False, OPENVINO_BF16), (True, True, True, OPENVINO), (True, False, False, OPENVINO),
     (False, True, False, OPENVINO)],
    indirect=["a_cpu"],
)  # fmt: skip
def test_bfloat16_is_taken_where_cpu_and_card_allow_it(model, a_cpu, measured, exact, expected):
    other = models.Model(model.folder, model.card | {"bfloat16": measured})
    assert choose_runtime("cpu", other, exact=exact) == expected
    assert choose_runtime(expected, other) == expected
    assert choose_runtime("cpu", other, "torch", exact) == torch.device("cpu")


@pytest.mark.parametrize("a_cpu", [True], indirect=True)
def test_commands_say_in_which_precision_they_computed_and_exact_is_float32(model, a_cpu, tmp_path):
    shutil.copytree(model.folder, tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text(json.dumps(model.card | {"bfloat16": True}))
    chest, ct = tiny_chest(), tmp_path / "ct.nii.gz"
    write_image(chest.array, chest.grid, ct)
    for name, options in (("bfloat16", []), ("float32", ["--exact"])):
        common = ["--model", str(tmp_path / "model"), "--device", "cpu"]
        assert main(["segment", str(ct), str(tmp_path / name), *common, *options]) == 0
        assert json.loads((tmp_path / name / "report.json").read_text())["device"]["precision"] == name
        job = SegmentationSpec(tmp_path / "model", "cpu", None, exact=bool(options)).prepare(0, 1)
        assert job.where == (OPENVINO if options else OPENVINO_BF16)


def test_what_openvino_cannot_do_is_said(model, paper_model, no_openvino, monkeypatch):
    with pytest.raises(InputError, match="not installed; install it"):
        choose_runtime("cpu", model, OPENVINO)
    monkeypatch.undo()
    with pytest.raises(InputError, match="'tiny' has a network that is not built for OpenVINO"):
        choose_runtime("cpu", paper_model, OPENVINO)
    with pytest.raises(InputError, match="device 'cuda:1' was given"):
        choose_runtime("cuda:1", model, OPENVINO)
    with pytest.raises(InputError, match="'onnx' is unknown"):
        choose_runtime("cpu", model, "onnx")


def test_both_find_the_same_and_the_report_names_what_ran(model):
    chest = tiny_chest()
    stand_in = with_stand_ins(model)
    on_torch, on_openvino = (
        pipeline.segment(chest, stand_in, device=choose_runtime("cpu", model, name)) for name in ("torch", OPENVINO)
    )
    assert len(on_torch.nodules) > 0
    np.testing.assert_array_equal(on_openvino.labels, on_torch.labels)
    for one, other in zip(on_openvino.nodules, on_torch.nodules, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
        assert one.classifier_score == pytest.approx(other.classifier_score, abs=1e-3)
    for name, result in (("torch", on_torch), (OPENVINO, on_openvino)):
        assert (result.report["device"]["used"], result.report["device"]["runtime"]) == ("cpu", name)
        assert name in result.report["versions"]


@pytest.mark.parametrize("classifier", [False, True])
def test_without_a_detector_both_find_the_same(classifier, tmp_path):
    model, chest = write_model(tmp_path / "tiny", detector=False, classifier=classifier), tiny_chest()
    assert choose_runtime("cpu", model, OPENVINO) == OPENVINO
    on_torch, on_openvino = (
        pipeline.segment(chest, model, device=where, threshold=0) for where in (torch.device("cpu"), OPENVINO)
    )
    assert len(on_torch.nodules) == 3
    np.testing.assert_array_equal(on_openvino.labels, on_torch.labels)
    for one, other in zip(on_openvino.nodules, on_torch.nodules, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)


@pytest.mark.parametrize("name", ["torch", OPENVINO])
def test_a_batch_takes_a_model_without_a_detector(name, tmp_path):
    model = write_model(tmp_path / "tiny", detector=False, second=True)
    job = SegmentationSpec(model.folder, "cpu", None, name).prepare(0, 1)
    assert str(job.where) == {"torch": "cpu"}.get(name, name)


SHARE = """
import os, sys
from pathlib import Path
os.sched_getaffinity, os.cpu_count = (lambda _: {0, 1}), (lambda: 64)
from LNHGLib.batch.segment_case import SegmentationSpec
job = SegmentationSpec(Path(sys.argv[1]), "cpu", None, "openvino").prepare(0, 2)
compiled = [graph for one in job.model._networks.values() for graph in getattr(one, "graphs", None) or [one.compiled]]
print(*(graph.get_property("INFERENCE_NUM_THREADS") for graph in compiled))
"""


@pytest.mark.slow
def test_jobs_share_the_cores_that_the_process_may_use(model, tmp_path):
    """Two jobs on two of 64 cores: a thread for each network, also where the cache has it compiled for two."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"LNHG_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    for program in (SHARE.replace("(0, 2)", "(0, 1)"), SHARE, SHARE):
        done = subprocess.run(
            [sys.executable, "-c", program, str(model.folder)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        threads = "2" if "(0, 1)" in program else "1"
        assert done.stdout.split() == [threads] * 6  # two generators, three graphs of the detector, a classifier


def images(model, where, ct_norm):
    generator, second = (
        model.network(part, where) if part in model.card else None for part in ("generator", "second_generator")
    )
    ensemble = Ensemble.of(model.spec, generator, second)
    return [ensemble.predict(ct_norm), ensemble.predict_center(ct_norm)]


def test_the_default_model_outlines_a_real_nodule_alike(data_dir):
    """On a crop of a real CT, by the first member and by all: images, and Dice of the outlines."""
    import h5py

    model = models.load()
    with h5py.File(data_dir / "crops" / "luna16_crops.h5") as file:
        ct_norm = normalize(file["ct"][0], model.spec.window_hu)[:48, :48, :48]
    threshold = model.spec.generator.threshold
    pairs = zip(*(images(model, where, ct_norm) for where in ("cpu", OPENVINO)), strict=True)
    for on_torch, on_openvino in pairs:
        np.testing.assert_allclose(on_openvino, on_torch, atol=1e-4)
        one, other = on_torch > threshold, on_openvino > threshold
        assert one.any()
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) >= 0.999


CHILD = """
import sys
tried = []
sys.addaudithook(lambda event, _arguments: tried.append(event) if event in (
    "socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request", "http.client.connect") else None)
from LNHGLib.__main__ import main
status = main(sys.argv[1:])
print("RESULT", status, *tried, *({"torch", "torchvision"} & set(sys.modules)))
"""


def test_segment_on_a_cpu_imports_no_torch_and_tries_no_connection(model, tmp_path):
    chest = tiny_chest()
    image = sitk.GetImageFromArray(chest.array)
    image.SetSpacing(chest.grid.spacing_mm[::-1])
    sitk.WriteImage(image, tmp_path / "chest.nii.gz")
    arguments = ["segment", tmp_path / "chest.nii.gz", tmp_path / "out", "--model", model.folder, "--device", "cpu"]
    command = [sys.executable, "-c", CHILD, *map(str, arguments), "--runtime", OPENVINO]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "RESULT 0", done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["device"]["runtime"] == OPENVINO
