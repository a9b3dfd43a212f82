"""The nodule at a place that a reader shows, by the segmenter alone."""

import json

import numpy as np
import pytest
from LNHGLib.__main__ import main
from LNHGLib.errors import InputError
from LNHGLib.image.boxes import box_around_lps
from LNHGLib.image.volume import Volume, write_image
from LNHGLib.segmentation import pipeline, point_prompt
from LNHGLib.segmentation.native_grid import AROUND_MM
from tiny_model import centers_lps_mm, tiny_chest, with_stand_ins, write_model


@pytest.fixture(scope="module")
def chest():
    return tiny_chest()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("place") / "tiny")


@pytest.fixture(scope="module")
def whole(chest, model):
    """What the whole pipeline finds."""
    return pipeline.segment(chest, with_stand_ins(model))


def nodule_at(result, point):
    return min(result.nodules, key=lambda n: np.linalg.norm(np.subtract(n.measurement.centroid_lps_mm, point)))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_place_gives_the_same_nodule_as_the_whole_run(chest, model, whole, index):
    center = centers_lps_mm(chest)[index]
    result = point_prompt.segment_at(chest, model, tuple(center + 2.0))
    expected = nodule_at(whole, center)
    assert [nodule.provenance for nodule in result.nodules] == ["segmenter"]
    assert result.nodules[0].measurement == expected.measurement
    np.testing.assert_array_equal(result.labels == 1, whole.labels == expected.number)
    assert result.nodules[0].heterogeneity["mean"] == pytest.approx(expected.heterogeneity["mean"], rel=1e-5)


def test_a_card_has_vessels_trimmed_from_outlines(chest, model, tmp_path):
    center = centers_lps_mm(chest)[1]
    z, y, x = np.rint(chest.grid.lps_to_index(center)).astype(int)
    array = chest.array.copy()
    array[z : z + 2, y : y + 2, x : x + 13] = 40
    vessel = Volume(array, chest.grid, chest.source)
    trimming = write_model(tmp_path / "trimming", generator={**model.card["generator"], "trim": True})
    plain, trimming = with_stand_ins(model), with_stand_ins(trimming)
    for segment in (pipeline.segment, lambda *given: point_prompt.segment_at(*given, tuple(center))):
        alone, with_vessel, trimmed = (
            nodule_at(segment(*given), center).measurement.volume_mm3
            for given in ((chest, plain), (vessel, plain), (vessel, trimming))
        )
        assert with_vessel > 1.1 * alone
        assert trimmed - alone < (with_vessel - alone) / 2


def test_a_faint_nodule_is_cut_lower_at_a_place_and_in_the_whole_run(chest, model, whole, tmp_path):
    """The tiny model's image of a nodule is at most 0.4."""
    center = centers_lps_mm(chest)[1]
    faint = {**model.card["generator"], "faint_below": 0.8}
    lower = with_stand_ins(write_model(tmp_path / "lower", generator=faint))
    never = with_stand_ins(write_model(tmp_path / "never", generator={**faint, "faint_below": 0.3}))
    run, prompt = pipeline.segment(chest, lower), point_prompt.segment_at(chest, lower, tuple(center))
    found, before = nodule_at(run, center), nodule_at(whole, center)
    np.testing.assert_array_equal(prompt.labels == 1, run.labels == found.number)
    assert found.measurement.volume_mm3 > 1.05 * before.measurement.volume_mm3
    assert (run.labels == found.number)[whole.labels == before.number].all()
    np.testing.assert_array_equal(pipeline.segment(chest, never).labels, whole.labels)


def test_a_part_of_the_ct_suffices(chest, model):
    center = centers_lps_mm(chest)[1]
    box = box_around_lps((tuple(center), tuple(center)), chest.grid, 45.0)
    part = Volume(chest.array[box], chest.grid.crop(box), chest.source)
    whole, cut = (point_prompt.segment_at(each, model, tuple(center)).nodules[0] for each in (chest, part))
    assert cut.measurement.volume_mm3 == whole.measurement.volume_mm3
    np.testing.assert_allclose(cut.measurement.centroid_lps_mm, whole.measurement.centroid_lps_mm)


def test_a_place_without_a_nodule_says_so(chest, model):
    with pytest.raises(InputError, match=r"no nodule within 5 mm of L,P,S .*draw it by hand"):
        point_prompt.segment_at(chest, model, tuple(centers_lps_mm(chest)[0] + [0, 0, 30]))


def test_a_place_outside_the_ct_is_refused(chest, model):
    with pytest.raises(InputError, match="outside the CT"):
        point_prompt.segment_at(chest, model, (9999.0, 0.0, 0.0))


def test_the_papers_grid_works_too(chest, tmp_path):
    generator = {"kind": "paper", "width": 1, "weights": "generator.safetensors", "threshold": 0.1, "slab": 3}
    paper = write_model(tmp_path / "paper", grid={"kind": "fov", "size": 96}, generator=generator)
    center = centers_lps_mm(chest)[1]
    found = point_prompt.segment_at(chest, paper, tuple(center)).nodules[0].measurement
    assert np.linalg.norm(np.subtract(found.centroid_lps_mm, center)) < 3.0


def test_signal_is_known_around_every_finding_of_a_run(whole):
    for nodule in whole.nodules:
        box = box_around_lps(nodule.box_lps_mm, whole.volume.grid, AROUND_MM)
        patch = next(each for each in whole.patches if each.box == box)
        mask = whole.labels[box] == nodule.number
        np.testing.assert_allclose(patch.signal[mask], whole.heterogeneity[box][mask], atol=1e-5)
    assert any((patch.signal[whole.labels[patch.box] == 0] != 0).any() for patch in whole.patches)


def test_command_writes_a_result_folder_with_one_nodule(chest, model, tmp_path, capsys):
    write_image(chest.array, chest.grid, tmp_path / "ct.nrrd")
    at = ",".join(f"{value:.1f}" for value in centers_lps_mm(chest)[0])
    arguments = ["segment", str(tmp_path / "ct.nrrd"), str(tmp_path / "out"), "--at", at, "--model", str(model.folder)]
    assert main([*arguments, "--json"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [nodule["provenance"] for nodule in report["nodules"]] == ["segmenter"]
    assert (tmp_path / "out" / "signal.nii.gz").exists()


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "1,2,nan"])
def test_command_refuses_what_is_no_place(text, tmp_path, capsys):
    assert main(["segment", str(tmp_path), str(tmp_path / "out"), f"--at={text}"]) == 2
    assert "expected L,P,S in mm" in capsys.readouterr().err
