"""The whole way from a CT to its nodules, on a tiny chest with a generator that lets bright signal through."""

import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from LNHGLib.errors import Cancelled, InputError
from LNHGLib.image.volume import Grid, Source, Volume, resample
from LNHGLib.segmentation import devices, pipeline
from tiny_model import NODULES, BlobDetector, centers_lps_mm, gate_generator, tiny_chest, with_stand_ins, write_model
from torch import nn

AXIS_ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))
SOME_ORDERS = [AXIS_ORDERS[i] for i in (1, 10, 21, 28, 35, 46)]
"""Of the 48, one for each permutation of the axes, with different flips."""


class _Nothing(nn.Module):
    def forward(self, images):
        return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)} for _ in images]


@pytest.fixture(scope="module")
def folder_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.fixture(scope="module")
def model(folder_model):
    return with_stand_ins(folder_model)


@pytest.fixture(scope="module")
def chest():
    return tiny_chest()


@pytest.fixture(scope="module")
def steps():
    return []


@pytest.fixture(scope="module")
def result(chest, model, steps):
    return pipeline.segment(chest, model, progress=lambda fraction, text: steps.append((fraction, text)))


def with_card(model, **changes):
    return type(model)(model.folder, {**model.card, **changes})


def found_centers(result):
    return np.array([nodule.measurement.centroid_lps_mm for nodule in result.nodules])


def paired(found, expected):
    """Distance of every expected point to the nearest found one."""
    return np.linalg.norm(found[None] - expected[:, None], axis=2).min(axis=1)


def test_every_sphere_is_found_at_its_place_and_nothing_else(result, chest):
    assert len(result.nodules) == len(NODULES)
    assert paired(found_centers(result), centers_lps_mm(chest)).max() < 1.5


def test_nodules_are_numbered_by_score(result):
    assert [nodule.number for nodule in result.nodules] == [1, 2, 3]
    scores = [nodule.score for nodule in result.nodules]
    assert scores == sorted(scores, reverse=True)


def test_both_branches_leave_their_scores(result):
    for nodule in result.nodules:
        assert nodule.provenance == "fused"
        assert nodule.detector_score == pytest.approx(0.9, abs=1e-6)
        assert 0 < nodule.segmenter_score < 1


def test_the_label_map_has_the_nodules_volumes_on_the_inputs_grid(result, chest):
    assert result.labels.shape == result.heterogeneity.shape == chest.array.shape
    assert result.labels.dtype == np.uint16
    for nodule in result.nodules:
        volume_mm3 = (result.labels == nodule.number).sum() * chest.grid.voxel_volume_mm3
        assert volume_mm3 == pytest.approx(nodule.measurement.volume_mm3)
        distance = np.linalg.norm(centers_lps_mm(chest) - nodule.measurement.centroid_lps_mm, axis=1)
        radius_mm = NODULES[int(distance.argmin())][1]
        assert volume_mm3 == pytest.approx(4 / 3 * np.pi * radius_mm**3, rel=0.25)


def test_a_nodules_voxels_are_one_piece_around_its_centroid(result, chest):
    for nodule in result.nodules:
        index = np.rint(chest.grid.lps_to_index(nodule.measurement.centroid_lps_mm)).astype(int)
        assert result.labels[tuple(index)] == nodule.number


def test_the_signal_lies_inside_the_nodules_only(result):
    assert not result.heterogeneity[result.labels == 0].any()
    assert (result.heterogeneity[result.labels > 0] > 0.1).mean() > 0.9


def test_the_report_names_model_device_options_and_seconds(result, model):
    report = result.report
    assert report["model"]["sha256"] == model.card["files"]
    assert report["model"]["threshold"] == model.card["threshold"]
    assert report["fusion"]["highest_score"] == result.nodules[0].score
    assert report["options"]["threshold"] == 0.3
    assert report["device"]["used"] in ("cpu", "cuda:0")
    assert list(report["seconds"]) == ["lungs", "grid", "generator", "detector", "fusion", "ensemble", "measurement"]


def test_a_ct_that_does_not_say_how_the_patient_lies_has_no_sides(chest, model):
    unknown = pipeline.segment(replace(chest, source=replace(chest.source, oriented=False)), model)
    assert unknown.nodules
    assert {nodule.side for nodule in unknown.nodules} == {None}
    assert not unknown.report["lungs"]


def test_progress_rises_from_nothing_to_one(result, steps):
    fractions = [fraction for fraction, _ in steps]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert len(set(fractions)) > 8


def test_progress_of_the_ensemble_counts_the_findings(chest, model):
    steps, twice = [], with_card(model, generator={**model.card["generator"], "half_turn": True})
    again = pipeline.segment(chest, twice, progress=lambda fraction, text: steps.append((round(fraction, 4), text)))
    look = sorted({fraction for fraction, text in steps if "again" in text})
    assert len([nodule for nodule in again.nodules if nodule.segmenter_score]) > 1
    assert look[0] == 0.82
    assert look[-1] == 0.98
    np.testing.assert_allclose(np.diff(look), look[1] - look[0], atol=2e-4)
    assert list(again.report["seconds"])[-2:] == ["ensemble", "measurement"]


def test_a_second_generator_decides_with_the_first(chest, model, result, tmp_path):
    """A blind one halves the signal, with it the segmenter's score, and shrinks no outline beyond the threshold."""
    both = with_stand_ins(write_model(tmp_path / "both", second=True))
    again = pipeline.segment(chest, both, threshold=0.0)
    assert len(again.nodules) == len(result.nodules)
    for before, after in zip(result.nodules, again.nodules, strict=True):
        assert after.segmenter_score == pytest.approx(before.segmenter_score / 2, rel=1e-3)
        assert after.score < before.score
        assert after.detector_score == before.detector_score
    there = again.labels > 0
    np.testing.assert_allclose(again.heterogeneity[there], result.heterogeneity[there] / 2, atol=0.05)
    assert pipeline.segment(chest, both, threshold=result.nodules[-1].score).nodules == []


@pytest.mark.parametrize(("order", "flips"), SOME_ORDERS)
def test_another_axis_order_gives_the_same_nodules(chest, model, result, order, flips):
    array = chest.array.transpose(order)
    affine = chest.grid.affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    turned = Volume(np.ascontiguousarray(array), Grid(array.shape, affine), Source("turned"))
    again = pipeline.segment(turned, model)
    np.testing.assert_allclose(found_centers(again), found_centers(result), atol=0.01)
    there = again.labels
    for axis, flip in enumerate(flips):
        there = np.flip(there, axis) if flip else there
    np.testing.assert_array_equal(there.transpose(np.argsort(order)), result.labels)


@pytest.mark.parametrize("degrees", [(12, 0), (-7, 15)])
def test_an_oblique_scan_gives_the_same_nodules(chest, model, result, degrees):
    a, b = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ chest.grid.affine[:3, :3] * 0.9
    shape = np.array([56, 86, 104])
    middle = chest.grid.index_to_lps((np.array(chest.grid.shape) - 1) / 2)
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    grid = Grid(shape, affine)
    oblique = Volume(resample(chest.array, chest.grid, grid).astype(np.int16), grid, Source("oblique"))
    again = pipeline.segment(oblique, model)
    assert len(again.nodules) == len(NODULES)
    assert paired(found_centers(again), found_centers(result)).max() < 1.0


def test_a_healthy_chest_has_no_nodule(model):
    result = pipeline.segment(tiny_chest(nodules=()), model)
    assert result.nodules == []
    assert not result.labels.any()
    assert not result.heterogeneity.any()


def test_findings_below_the_threshold_are_dropped(chest, model, result):
    middle = result.nodules[1].score
    assert len(pipeline.segment(chest, model, threshold=middle).nodules) == 2


def test_boxes_without_a_component_are_flagged_and_have_no_voxels(chest, folder_model):
    silent = with_stand_ins(folder_model, generator=gate_generator(2.0))
    result = pipeline.segment(chest, silent, threshold=0.0)
    assert {nodule.provenance for nodule in result.nodules} == {"detector-box"}
    assert len(result.nodules) == len(NODULES)
    assert not result.labels.any()
    assert all(nodule.measurement is None and nodule.heterogeneity is None for nodule in result.nodules)
    centers = np.array([np.mean(nodule.box_lps_mm, axis=0) for nodule in result.nodules])
    assert paired(centers, centers_lps_mm(chest)).max() < 3


def test_without_any_box_the_generators_nodules_are_kept_and_it_is_said(chest, folder_model):
    result = pipeline.segment(chest, with_stand_ins(folder_model, detector=_Nothing()), threshold=0.0)
    assert {nodule.provenance for nodule in result.nodules} == {"segmenter"}
    assert len(result.nodules) >= len(NODULES)
    assert "fallback A" in result.report["fusion"]["state"]


def test_the_papers_grid_of_native_slices_finds_the_same_nodules(chest, model):
    result = pipeline.segment(chest, with_card(model, grid={"kind": "fov", "size": 96}))
    assert paired(found_centers(result), centers_lps_mm(chest)).max() < 1.5


def test_a_wish_to_stop_ends_the_work_before_the_next_step(chest, model):
    seen = []

    def note(fraction, text):
        seen.append(fraction)

    with pytest.raises(Cancelled):
        pipeline.segment(chest, model, progress=note, cancelled=lambda: bool(seen) and seen[-1] >= 0.1)
    assert seen[-1] == pytest.approx(0.1)


def test_a_volume_without_lung_is_refused(model):
    solid = tiny_chest()
    with pytest.raises(InputError, match="no lung"):
        pipeline.segment(Volume(np.full_like(solid.array, 40), solid.grid, solid.source), model)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(InputError, match="is unknown, expected auto, cpu, cuda or cuda:N"):
        devices.choose_device(device)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="'cuda:77' is not there"):
        devices.choose_device("cuda:77")


def test_a_threshold_out_of_range_is_refused(chest, model):
    with pytest.raises(InputError, match=r"threshold is 1\.5"):
        pipeline.segment(chest, model, threshold=1.5)


@pytest.mark.gpu
def test_the_gpu_gives_the_cpus_nodules(chest, folder_model):
    model = with_stand_ins(folder_model, detector=BlobDetector())
    on_cpu, on_gpu = (pipeline.segment(chest, model, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(found_centers(on_gpu), found_centers(on_cpu), atol=0.1)


class _Greedy(BlobDetector):
    """A detector that runs out of memory with more than one slice at a time."""

    def forward(self, images):
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(images)


def test_too_little_memory_gives_the_same_nodules_and_a_warning_in_the_report(chest, folder_model, result):
    told = []
    model = with_stand_ins(folder_model, _Greedy())
    again = pipeline.segment(chest, model, progress=lambda _fraction, text: told.append(text))
    np.testing.assert_array_equal(again.labels, result.labels)
    assert [warning for warning in again.report["warnings"] if "smaller pieces" in warning]
    assert "Checking slice by slice (detector) (small pieces)" in told
    assert not [warning for warning in result.report["warnings"] if "memory" in warning]


def test_a_gpu_without_room_for_the_weights_leaves_the_work_to_the_cpu():
    monitor, asked = pipeline.Monitor(), []

    def load(where):
        asked.append(str(where))
        if str(where) == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return BlobDetector()

    pipeline.load_network(load, torch.device("cuda"), monitor)
    assert asked == ["cuda", "cpu"]
    assert "CPU took over" in monitor.warnings[0]


def test_a_network_that_cannot_be_loaded_for_another_reason_is_not_tried_on_the_cpu():
    def load(_where):
        raise RuntimeError("driver too old")

    with pytest.raises(RuntimeError, match="driver too old"):
        pipeline.load_network(load, torch.device("cuda"), pipeline.Monitor())


def test_a_run_enters_the_stages_of_the_documents_in_their_order_and_each_once(chest, model):
    entered = []

    def note(frame, event, _argument):
        caller = frame.f_back
        if event == "call" and caller is not None and caller.f_code is pipeline.segment.__code__:
            file = Path(frame.f_code.co_filename)
            if file.parent.name == "segmentation" and file.name not in ("progress.py", "runtime.py"):
                entered.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        pipeline.segment(chest, model)
    finally:
        sys.setprofile(None)
    page = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- stages")[2].partition("<!-- end of stages -->")[0]
    assert re.findall(r"^\d+\. `(\w+)`", listed, re.MULTILINE) == entered
    assert len(set(entered)) == len(entered) >= 7
