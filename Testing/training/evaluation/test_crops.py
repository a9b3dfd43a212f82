"""Evaluation with predictors whose result is known, on synthetic nodules and the readers' own outlines."""

import hashlib
import json

import h5py
import numpy as np
import pytest
from evaluation_data import CARD, QUIET, ball, crop_report, empty, perfect, read_csv, row, write_crops
from LNHGLib.errors import DiskError, InputError
from LNHGLib.files.atomic import atomic_folder
from LNHGLib.segmentation.ensemble import Ensemble, Member
from LNHGLib.segmentation.preprocessing import normalize
from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import metrics, run
from LNHGTrainingLib.evaluation.crops import Selection, center_component
from LNHGTrainingLib.evaluation.crops import evaluate_crops as score_crops
from LNHGTrainingLib.evaluation.run import EvaluationOptions


def test_a_perfect_generator_reaches_dice_one_on_every_nodule(crops):
    report = crop_report(crops, perfect)
    whole = report["groups"]["all"]
    assert (whole["nodules"], whole["patients"], whole["found"]) == (6, 3, 6)
    assert whole["dice_all"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert whole["hd95_mm"]["value"] == 0.0
    assert whole["human_loo_dice"]["value"] == 1.0


def test_an_empty_generator_gets_dice_zero_and_finds_nothing(crops):
    report = crop_report(crops, empty)
    assert report["groups"]["all"]["found"] == 0
    assert report["groups"]["all"]["dice_all"]["value"] == 0.0
    assert report["groups"]["all"]["dice_found"]["value"] is None


def test_missed_nodules_count_as_zero_in_one_mean_and_are_left_out_of_the_other(crops):
    report = crop_report(crops, lambda hu: perfect(hu) * ((hu > 0).sum() > 500))
    whole = report["groups"]["all"]
    assert whole["dice_all"]["value"] == pytest.approx(whole["found"] / 6, abs=1e-4)
    assert 0 < whole["found"] < 6
    assert whole["dice_found"]["value"] == 1.0


def test_what_else_is_marked_in_the_lung_is_counted(tmp_path):
    """A vessel beside the nodule counts; specks, the chest wall, another reader's outline and other lesions do not."""
    nodule, one_reader = ball((25, 25, 25), 5), ball((25, 25, 10), 3)
    vessels, speck, lesion = ball((44, 25, 25), 3) | ball((6, 42, 30), 2), ball((25, 40, 40), 1), ball((12, 12, 12), 3)
    shell = np.pad(np.zeros((26, 26, 26), bool), 12, constant_values=True)
    files = write_crops(tmp_path, [row(0)], [15 * nodule + 1 * one_reader])
    with h5py.File(files[0], "r+") as file:
        file["ct"][0] = np.where(file["ct"][0] > 0, 40, -800)
        file["other_mask"][0] = lesion
    predicted = nodule | one_reader | vessels | speck | lesion

    report = crop_report(files, lambda hu: predicted.astype(np.float32))
    assert report["elsewhere"] == {"value": 2.0, "low": None, "high": None}
    assert report["groups"]["all"]["dice_all"]["value"] == 1.0

    with h5py.File(files[0], "r+") as file:
        file["ct"][0] = np.where(shell, 40, file["ct"][0])
    assert crop_report(files, lambda hu: predicted.astype(np.float32))["elsewhere"]["value"] == 0.0


def test_the_summary_can_be_computed_from_the_table_beside_it(crops, tmp_path, no_plots):
    def eroded(hu):
        return (hu > -400) & np.roll(hu > -400, 1, axis=0)

    report = run.run_crops(CARD, eroded, crops, tmp_path / "out", Selection(), QUIET)
    rows = read_csv(tmp_path / "out" / "nodules.csv")
    assert np.mean([float(r["dice"]) for r in rows]) == pytest.approx(
        report["groups"]["all"]["dice_all"]["value"], abs=1e-4
    )
    large = [float(r["dice"]) for r in rows if float(r["diameter_mm"]) >= 10]
    assert np.mean(large) == pytest.approx(report["groups"]["10 mm and over"]["dice_all"]["value"], abs=1e-4)
    assert "under 6 mm" not in report["groups"]
    assert np.mean([float(r["elsewhere"]) for r in rows]) == pytest.approx(report["elsewhere"]["value"], abs=1e-4)
    assert report == json.loads((tmp_path / "out" / "summary.json").read_text())
    expected = ["patient", "series", "nodule", "diameter_mm", "readers", "found", "dice", "hd95_mm", "human_loo_dice"]
    assert set(expected) <= set(rows[0])


def test_the_summary_names_data_split_protocol_model_and_interval(crops, tmp_path):
    run.run_crops(CARD, perfect, crops, tmp_path / "out", Selection(folds=(0,)), QUIET)
    text = (tmp_path / "out" / "summary.md").read_text()
    sha = hashlib.sha256(crops[1].read_bytes()).hexdigest()[:16]
    for part in (
        "synthetic nodules",
        sha,
        "folds 0 by patient",
        "at least half",
        "at least 14.1 mm3 in the cube's lung",
        "a" * 64,
        "bootstrap",
        "1.000 (1.000 to",
    ):
        assert part in text
    assert str(tmp_path) not in text
    for name in ("dice_vs_diameter.png", "bland_altman.png", "examples.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5000


def test_the_split_warns_of_patients_the_model_was_trained_on(crops, tmp_path, no_plots):
    clean = run.run_crops(CARD, perfect, crops, tmp_path / "a", Selection(limit=2), QUIET)
    mixed = run.run_crops(CARD, perfect, crops, tmp_path / "b", Selection(), QUIET)
    silent = run.run_crops(CARD | {"training": {}}, perfect, crops, tmp_path / "c", Selection(), QUIET)
    assert "None of them is among the 2 patients" in clean["split"]
    assert "Beware: 1 of them are among the 2 patients" in mixed["split"]
    assert "does not list the patients" in silent["split"]


def test_the_reference_is_the_voxels_inside_at_least_half_of_the_outlines(tmp_path):
    large, small = ball((25, 25, 25), 6), ball((25, 25, 25), 4)
    bits = [0b0011 * large | 0b1100 * small, 0b001 * large | 0b110 * small]
    rows = [row(0), row(1, n_readers_usable=3)]
    read = list(
        evaluate_crops.read_crops(
            write_crops(tmp_path, rows, bits)[0], [{k: str(v) for k, v in r.items()} for r in rows]
        )
    )
    assert np.array_equal(read[0].reference, large)
    assert np.array_equal(read[1].reference, small)
    assert [len(crop.readers) for crop in read] == [4, 3]


def test_padding_outside_the_valid_extent_does_not_count(tmp_path):
    files = write_crops(tmp_path, [row(0)], [15 * ball((25, 25, 25), 6)], valid=(0, 25, 0, 50, 0, 50))
    rows = evaluate_crops.select_rows(files[1], Selection())
    score = score_crops(evaluate_crops.read_crops(files[0], rows), perfect, 0.5).scores[0]
    assert score.dice == 1.0
    assert score.reference_volume_mm3 == ball((25, 25, 25), 6)[:25].sum()


def test_a_faint_nodule_is_scored_with_the_rim_that_its_outline_gets(tmp_path):
    files = write_crops(tmp_path, [row(0)], [15 * ball((25, 25, 25), 6)])
    rows = evaluate_crops.select_rows(files[1], Selection())
    other = 0.03 * ball((25, 25, 44), 4)

    def faint(hu):
        return np.maximum(0.02 * ball((25, 25, 25), 6) + 0.18 * ball((25, 25, 25), 4), other)

    plain, lower = (
        score_crops(evaluate_crops.read_crops(files[0], rows), faint, 0.05, False, below).scores[0]
        for below in (None, 0.5)
    )
    assert plain.dice < 0.6
    assert lower.dice == 1.0
    assert plain.elsewhere == lower.elsewhere == 0


def test_the_component_at_the_center_wins_over_larger_ones():
    center, other = ball((25, 25, 25), 2), ball((25, 25, 38), 8)
    assert np.array_equal(center_component(center | other), center)


@pytest.mark.parametrize(("offset", "taken"), [(6, True), (7, True), (8, False)])
def test_the_nearest_component_is_taken_up_to_five_millimeters(offset, taken):
    near, far = ball((25, 25, 25 + offset), 2), ball((10, 10, 10), 4)
    expected = near if taken else np.zeros_like(near)
    assert np.array_equal(center_component(near | far), expected)


def test_a_component_beside_the_nodule_does_not_find_it(tmp_path):
    files = write_crops(tmp_path, [row(0)], [15 * ball((25, 25, 25), 1)])
    beside = ball((25, 25, 29), 2).astype(np.float32)
    report = crop_report(files, lambda hu: beside)
    assert report["groups"]["all"]["found"] == 0
    assert report["groups"]["all"]["dice_all"]["value"] == 0.0


def test_selection_follows_usable_readers_folds_and_test_scans(tmp_path):
    rows = [
        row(0),
        row(1, usable=0, n_readers_usable=""),
        row(2, n_readers_usable=2),
        row(3),
        row(4, fold=-1, scan_test=1),
    ]
    _, table = write_crops(tmp_path, rows, [ball((25, 25, 25), 3)] * 5)

    def chosen(**options):
        return [int(r["row"]) for r in evaluate_crops.select_rows(table, Selection(**options))]

    assert chosen() == [0, 3]
    assert chosen(min_readers=2) == [0, 2, 3]
    assert chosen(folds=(1,)) == [3]
    assert chosen(folds=(1,), scan_test=True) == [3, 4]
    assert chosen(limit=1) == [0]
    with pytest.raises(InputError, match="no usable crop among 5 for folds 7"):
        chosen(folds=(7,))


def test_crops_without_a_consensus_voxel_are_left_out_and_counted(tmp_path):
    rows = [row(0), row(1)]
    files = write_crops(tmp_path, rows, [15 * ball((25, 25, 25), 3), 1 * ball((25, 25, 25), 3)])
    report = crop_report(files, perfect)
    assert (report["groups"]["all"]["nodules"], report["without_reference"]) == (1, 1)


def test_files_that_are_not_laid_out_like_the_crops_are_refused(crops, tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("row,usable\n0,1\n")
    with pytest.raises(InputError, match="lacks the columns patient_id"):
        evaluate_crops.select_rows(table, Selection())
    rows = evaluate_crops.select_rows(crops[1], Selection())
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        next(evaluate_crops.read_crops(crops[1], rows))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["ct"] = np.zeros((1, 50, 50, 50), np.int16)
    with pytest.raises(InputError, match="lacks the data sets reader_masks"):
        next(evaluate_crops.read_crops(tmp_path / "other.h5", rows))
    with pytest.raises(InputError, match="names row 9"):
        next(evaluate_crops.read_crops(crops[0], [*rows, {"row": "9"}]))


def test_nothing_is_left_when_the_evaluation_fails(crops, tmp_path):
    def broken(hu):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        run.run_crops(CARD, broken, crops, tmp_path / "out", Selection(), QUIET)
    with pytest.raises(DiskError, match="No such file"), atomic_folder(tmp_path / "out") as folder:
        (folder / "missing" / "half.txt").write_text("half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops.csv", "crops.h5"]


def test_an_output_folder_is_only_replaced_when_asked(crops, tmp_path, no_plots):
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.md").write_text("old")
    with pytest.raises(InputError, match="already exists"):
        run.run_crops(CARD, perfect, crops, out, Selection(), QUIET)
    assert (out / "summary.md").read_text() == "old"
    run.run_crops(CARD, perfect, crops, out, Selection(), EvaluationOptions(quiet=True, overwrite=True))
    assert (out / "summary.md").read_text() != "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops.csv", "crops.h5", "out"]
    (out / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'precious.txt'"):
        run.run_crops(CARD, perfect, crops, out, Selection(), EvaluationOptions(quiet=True, overwrite=True))


def test_the_readers_agreement_on_the_real_crops_is_the_published_one(data_dir):
    folder = data_dir / "crops"
    rows = evaluate_crops.select_rows(folder / "luna16_crops.csv", Selection(scan_test=True))
    dice = {
        int(crop.row["row"]): metrics.leave_one_out_dice(crop.readers)
        for crop in evaluate_crops.read_crops(folder / "luna16_crops.h5", rows)
    }
    assert round(np.mean(list(dice.values())), 3) == 0.779
    assert round(np.mean([dice[int(r["row"])] for r in rows if r["n_readers_usable"] == "4"]), 3) == 0.803
    assert all(abs(dice[int(r["row"])] - float(r["human_loo_dice"])) < 1e-3 for r in rows)


def test_the_consensus_itself_scores_one_on_real_crops(data_dir):
    folder = data_dir / "crops"
    rows = evaluate_crops.select_rows(folder / "luna16_crops.csv", Selection(folds=(0,), limit=40))
    read = list(evaluate_crops.read_crops(folder / "luna16_crops.h5", rows))
    masks = iter([crop.reference.astype(np.float32) for crop in read])
    results = score_crops(read, lambda hu: next(masks), threshold=0.5)
    single = [metrics.dice(center_component(crop.reference), crop.reference) for crop in read]
    assert [score.dice for score in results.scores] == single
    assert np.mean(single) > 0.99
    assert [int(r["cons_voxels"]) for r in rows] == [score.reference_volume_mm3 for score in results.scores]


# The model as a predictor


def identity_generator(factor=1):
    import torch

    class Identity(torch.nn.Module):
        halo, multiple = (0, 0, 0), 8

        def forward(self, x):
            return factor * x

    return Identity()


def cube_predictor(factors, card):
    """An ensemble that shows the CT, as many members as factors."""
    return run.cube_predictor(Ensemble([Member(identity_generator(factor)) for factor in factors]), card)


def test_a_model_at_another_spacing_is_resampled_without_a_shift():
    predict = cube_predictor([1], CARD | {"grid": {"kind": "spacing", "spacing_mm": [2.0, 1.25, 1.25]}})
    hu = np.where(ball((25, 25, 25), 12), 0, -800).astype(np.int16)
    image = predict(hu)
    assert image.shape == hu.shape
    body = image - image.min()
    center = [(body.sum(axis=tuple({0, 1, 2} - {axis})) * np.arange(50)).sum() / body.sum() for axis in range(3)]
    np.testing.assert_allclose(center, [25, 25, 25], atol=0.1)


def test_a_second_generator_has_its_part_in_the_image_and_in_the_protocol():
    cards = [CARD | {"generator": {key: True}, "second_generator": {}} for key in ("rotate_180", "half_turn")]
    hu = np.where(ball((25, 25, 25), 12), 0, -1000).astype(np.int16)
    alone = cube_predictor([1], CARD)(hu)
    np.testing.assert_allclose(cube_predictor([1, 1, 0], CARD)(hu), alone * 2 / 3, rtol=1e-6)
    assert not alone[0].any()
    assert not alone[49].any()
    np.testing.assert_allclose(alone[1:49, 1:49, 1:49], normalize(hu, CARD["window_hu"])[1:49, 1:49, 1:49])
    texts = [evaluate_crops.inference_text(card) for card in cards]
    assert texts == [texts[0]] * 2
    assert "three predictions: of the cube, of the cube rotated" in texts[0]
    assert evaluate_crops.inference_text(CARD | {"generator": {}}) == ""
    for key in ("prune_attachments", "trim"):
        assert "trimmed" in evaluate_crops.inference_text(CARD | {"generator": {key: True}})


def test_a_model_that_needs_the_field_of_view_is_refused_on_crops():
    with pytest.raises(InputError, match="field of view"):
        cube_predictor([1], CARD | {"grid": {"kind": "fov", "size": 256}})


# Whole scans
