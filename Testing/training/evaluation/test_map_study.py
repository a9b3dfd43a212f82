"""Metrics of the heterogeneity map on generators whose map is known: the CT itself, noise, a constant, a shift."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_data import ball, read_csv, row, write_crops
from LNHGLib.models.registry import build_generator
from LNHGLib.segmentation.preprocessing import normalize
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.baselines.side_by_side import ATTACHMENTS
from LNHGTrainingLib.evaluation import crops as evaluate_crops
from LNHGTrainingLib.evaluation import map_metrics, map_study, plots
from LNHGTrainingLib.training import checkpoint
from PIL import Image
from scipy import ndimage

WINDOW = [-1000.0, 400.0]
NODULE = ball((25, 25, 25), 7)


def crop(seed=0, sd=30.0, blur=(0.0, 0.0, 0.0)):
    """A textured nodule in lung with noise of known level."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=NODULE.shape), blur)
    hu = np.full(NODULE.shape, -870.0)
    texture = ndimage.gaussian_filter(rng.normal(size=NODULE.shape), 2)
    hu[NODULE] = -100 + 150 * (texture / texture.std())[NODULE]
    return hu + sd * noise / noise.std()


def as_crop(hu, index=0):
    fields = {key: str(value) for key, value in row(index).items()}
    return evaluate_crops.Crop(fields, hu, NODULE[None], NODULE, np.zeros(hu.shape, bool), np.ones(hu.shape, bool))


def ct_itself(hu):
    return normalize(hu, WINDOW)


def depth(hu):
    """A map that does not look at the CT."""
    return ndimage.distance_transform_edt(NODULE) / 8


def own_noise(hu):
    """A map of chance: other than the CT, and other at every repeat."""
    return np.random.default_rng(int(abs(hu).sum()) % 2**32).uniform(size=hu.shape)


@pytest.mark.parametrize(("sd", "blur"), [(20, (0, 0, 0)), (60, (0, 0, 0)), (40, (0.8, 0.7, 0.7))])
def test_the_noise_of_a_crop_is_found_with_its_smoothness(sd, blur):
    noise = map_metrics.estimate_noise(crop(sd=sd, blur=blur), np.ones(NODULE.shape, bool))
    assert noise.sd_hu == pytest.approx(sd, rel=0.15)
    np.testing.assert_allclose(noise.blur, blur, atol=0.2)


def test_a_crop_without_lung_has_no_estimate_of_noise():
    assert map_metrics.estimate_noise(np.zeros((50, 50, 50)), np.ones((50, 50, 50), bool)) is None
    assert map_metrics.estimate_noise(crop(), np.zeros(NODULE.shape, bool)) is None


def test_a_repeat_adds_noise_of_the_level_and_smoothness_asked_for():
    hu, noise = np.full((50, 50, 50), -870.0), map_metrics.Noise(40.0, (0.8, 0.7, 0.7))
    first, second = (map_metrics.repeat(hu, noise, np.random.default_rng(seed)) for seed in (0, 1))
    assert (first - hu).std() == pytest.approx(40)
    assert (first - second).std() == pytest.approx(40 * 2**0.5, rel=0.05)
    np.testing.assert_allclose(map_metrics.estimate_noise(first, np.ones(hu.shape, bool)).blur, noise.blur, atol=0.2)


def test_correlations_by_hand_and_where_there_is_none():
    values = np.arange(12.0)
    assert map_metrics.rank_correlation(values, values**3) == pytest.approx(1)
    assert map_metrics.correlation(values, -2 * values) == pytest.approx(-1)
    assert np.isnan(map_metrics.correlation(values, np.ones(12)))
    assert np.isnan(map_metrics.rank_correlation(values[:9], values[:9]))


def test_what_lies_beyond_the_ct_is_left_of_a_straight_line():
    ct, other = np.arange(10.0), np.array([1.0, -1] * 5)
    np.testing.assert_allclose(map_metrics.beyond(3 * ct + 2, ct), 0, atol=1e-9)
    assert map_metrics.correlation(map_metrics.beyond(3 * ct + other, ct), other) > 0.98


def test_similarity_is_one_for_equal_maps_and_counts_the_nodules_voxels_alone():
    a = np.random.default_rng(0).uniform(size=NODULE.shape)
    b = a.copy()
    b[:10] = 0
    assert map_metrics.similarity(a, a, NODULE) == pytest.approx(1)
    assert map_metrics.similarity(a, b, NODULE) == pytest.approx(1)
    assert map_metrics.similarity(a, np.random.default_rng(1).uniform(size=a.shape), NODULE) < 0.2


def test_equal_generators_are_stable_and_unrelated_ones_are_not():
    rows = map_study.stability([as_crop(crop())], {"a": ct_itself, "b": ct_itself, "c": own_noise})
    found = {(r.first, r.second): (r.ssim, r.spearman) for r in rows}
    assert found["a", "b"] == (pytest.approx(1), pytest.approx(1))
    assert abs(found["a", "c"][1]) < 0.1
    assert found["a", "c"][0] < 0.3


def test_a_map_that_is_the_ct_is_told_from_one_that_is_not():
    generators = {name: (f, WINDOW) for name, f in (("ct", ct_itself), ("depth", depth), ("chance", own_noise))}
    rows = {r.model: r for r in map_study.leakage([as_crop(crop(sd=60))], generators)}
    assert rows["ct"].pearson_with_ct == pytest.approx(1)
    assert rows["ct"].repeat_spearman == pytest.approx(rows["ct"].repeat_spearman_ct)
    assert np.isnan(rows["ct"].repeat_beyond_ct)
    assert abs(rows["depth"].pearson_with_ct) < 0.3
    assert rows["depth"].repeat_beyond_ct > 0.9
    assert abs(rows["chance"].pearson_with_ct) < 0.1
    assert abs(rows["chance"].repeat_spearman) < 0.1
    assert rows["depth"].noise_hu == pytest.approx(60, rel=0.15)


def test_more_noise_repeats_less():
    def repeats(sd):
        return map_study.leakage([as_crop(crop(sd=sd))], {"ct": (ct_itself, WINDOW)})[0].repeat_spearman

    assert repeats(20) > repeats(80) > 0.3


def test_the_icc_of_two_repeats_falls_with_noise():
    def retest(sd):
        crops = [as_crop(crop(seed, sd=sd), 2 * seed) for seed in range(6)]
        (line,) = (
            line
            for line in map_study.report("leakage", map_study.leakage(crops, {"ct": (ct_itself, WINDOW)}), {}, "d")[
                "lines"
            ]
            if line["size"] == "all"
        )
        return line["icc"]

    quiet, loud = retest(10), retest(120)
    assert list(quiet) == ["map", "CT"]
    assert quiet["map"] == quiet["CT"]  # this map is the CT
    for name in ("mean", "sd"):
        assert 1 > quiet["map"][name]["value"] > loud["map"][name]["value"]
        assert quiet["map"][name]["low"] > loud["map"][name]["low"]
    assert loud["map"]["sd"]["value"] < 0.9


def test_a_picture_shows_two_equal_maps_alike_and_the_ct_around_them(tmp_path):
    hu = crop()
    picture = plots.MapPicture(hu, NODULE, {"CT": ct_itself(hu), "map": ct_itself(hu), "none": 0 * hu}, {"map": "r 1"})
    plots.nodule_maps([picture, picture], ["first", "second"], WINDOW, tmp_path / "maps.png")
    image = np.asarray(Image.open(tmp_path / "maps.png").convert("RGB"))
    side, left, top = (round(inches * plots.DPI) for inches in (1.5, 0.3, 0.3))
    first, second, none = (image[top : top + side, left + n * side :][5:-5, 5 : side - 15] for n in range(1, 4))
    np.testing.assert_allclose(first.astype(int), second, atol=60)  # but for the ends of pixels
    assert np.mean(first != second) < 0.05
    colored = np.ptp(none.astype(int), axis=-1) > 10
    assert 0.1 < colored.mean() < 0.6  # the nodule
    assert np.abs(first[~colored].astype(int) - none[~colored]).mean() < 5  # the CT around it


@pytest.mark.parametrize(
    ("pleural", "vascular", "text"),
    [(0, 0, "solitary"), (1, 0, "juxta-pleural"), (0, 1, "juxta-vascular"), (1, 1, None)],
)
def test_maps_of_steps_are_of_nodules_attached_to_one_thing_alone(pleural, vascular, text):
    score = SimpleNamespace(juxta_pleural=pleural, juxta_vascular=vascular)
    assert [name for name, member in ATTACHMENTS.items() if member(score)] == [text] * (text is not None)


def test_lines_by_size_carry_intervals_by_patient():
    rows = [
        map_study.StabilityRow(patient, "s", "0", diameter, 50, "a", "b", value, value)
        for patient, diameter, value in (("P1", 5.0, 0.2), ("P1", 7.0, 0.4), ("P2", 12.0, 0.9))
    ]
    lines = {line["size"]: line for line in map_study.report("stability", rows, {}, "d")["lines"]}
    assert lines["all"]["ssim"] == {"value": 0.5, "low": 0.3, "high": 0.9}
    assert [(name, line["nodules"]) for name, line in lines.items()] == [
        ("all", 3), ("under 6 mm", 1), ("6 to 10 mm", 1), ("10 mm and over", 1),
    ]  # fmt: skip


@pytest.fixture
def checkpoints(tmp_path):
    """Two epochs of a segmenter of width 2, as training keeps them."""
    paths = []
    for step in (100, 200):
        torch.manual_seed(step)
        generator = {"kind": "strided", "width": 2}
        config = {"generator": generator, "window_hu": WINDOW, "seed": 5}
        paths.append(tmp_path / "run" / f"step-{step}.pt")
        paths[-1].parent.mkdir(exist_ok=True)
        checkpoint.save(paths[-1], {"config": config, "average": build_generator(generator).state_dict(), "step": step})
    return [str(path) for path in paths]


def test_the_commands_study_checkpoints_on_crops(checkpoints, crops, tmp_path, capsys):
    files = ["--crops", str(crops[0]), "--table", str(crops[1]), "--limit", "3", "--device", "cpu"]
    assert main(["stability", *checkpoints, str(tmp_path / "s"), *files]) == 0
    assert main(["leakage", checkpoints[0], str(tmp_path / "l"), *files]) == 0
    rows = read_csv(tmp_path / "s" / "maps.csv")
    assert [(r["patient"], r["first"], r["second"]) for r in rows] == [
        ("P0", "run/step-100", "run/step-200"), ("P0", "run/step-100", "run/step-200"),
        ("P1", "run/step-100", "run/step-200"),
    ]  # fmt: skip
    report = json.loads((tmp_path / "l" / "maps.json").read_text())
    assert "step 100, seed 5, SHA-256" in report["sources"]["run/step-100"]
    text = (tmp_path / "l" / "maps.md").read_text()
    assert "3 crops of crops, all folds, the first 3" in text
    assert text in capsys.readouterr().out
    assert str(tmp_path) not in text
    assert "ICC(A,1)" in text
    assert "| run/step-100 | all | 3 | 2 | the CT |" in text
    assert float(read_csv(tmp_path / "l" / "maps.csv")[0]["ct_mean_1"]) > 0


def test_what_cannot_be_studied_is_refused(checkpoints, crops, tmp_path, capsys):
    files = ["--crops", str(crops[0]), "--table", str(crops[1])]
    out = str(tmp_path / "out")
    assert main(["stability", checkpoints[0], out, *files]) == 2
    assert "stability expects 2 or more" in capsys.readouterr().err
    assert main(["leakage", str(tmp_path / "no.pt"), out, *files]) == 2
    assert "no.pt does not exist" in capsys.readouterr().err
    other = tmp_path / "detector.pt"
    checkpoint.save(other, {"config": {"detector": {}}, "average": {}, "step": 1})
    assert main(["leakage", str(other), out, *files]) == 2
    assert "holds no generator" in capsys.readouterr().err
    small = tmp_path / "small"
    small.mkdir()
    tiny = write_crops(small, [row(0)], [15 * ball((25, 25, 25), 1)])
    assert main(["leakage", checkpoints[0], out, "--crops", str(tiny[0]), "--table", str(tiny[1])]) == 2
    assert "large enough" in capsys.readouterr().err
