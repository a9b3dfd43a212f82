"""What a model's parts find, on findings that can be counted by hand, and by the command over two folds."""

import csv
import json
from dataclasses import replace

import pytest
import small_data
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.evaluation import detection
from LNHGTrainingLib.evaluation.detection import BOTH, CLASSIFIED, SEGMENTER, WITHOUT_DETECTOR, Nodule, Place
from LNHGTrainingLib.release import scan_findings
from LNHGTrainingLib.release.scan_findings import ScoredFinding
from tiny_model import write_model

SURE, UNSURE = 0.95, 0.05


def finding(place, on=(), scores=(0.5, None, 0.5), touches=None, diameter=6.0) -> ScoredFinding:
    touched = bool(on) if touches is None else touches
    return ScoredFinding(place, place, "fused", *scores, diameter, (1, 2, 3), tuple(on), touched)


def places(nodule_scores, false_scores, diameters=(5.0, 8.0, 12.0)) -> list[Place]:
    """Two whole scans with four false findings each, one with a nodule, and a crop for each diameter."""
    crops = [
        Place(f"crop {n}", f"p{n}", 0, False, [Nodule(1, size, 5.0)], [finding(f"crop {n}", [1], nodule_scores)])
        for n, size in enumerate(diameters)
    ]
    false = [[finding(f"s{n}", scores=false_scores) for _ in range(4)] for n in range(2)]
    own = [finding("s0", [3], nodule_scores)]
    nodule = Nodule(3, 7.0, float("nan"))
    return [Place("s0", "s0", 0, True, [nodule], false[0] + own), Place("s1", "s1", 0, True, [], false[1]), *crops]


@pytest.fixture
def model(tmp_path):
    def written(name="m", fold=0, classifier=True, saw=()):
        parts = ("generator", "detector", "classifier")
        data = {part: {"train_folds": [1 - fold, *([fold] if part in saw else [])]} for part in parts}
        training = {part: {"data": own | {"validation_folds": [fold]}} for part, own in data.items()}
        grid = {"kind": "spacing", "spacing_mm": [1.0, 1.0, 1.0]}
        return write_model(
            tmp_path / name, classifier=classifier, training=training, name=name, grid=grid, fusion={"keep": "all"}
        )

    return written


def systems(model, found):
    return detection.study("made up", [model], found).report["systems"]


def test_each_system_sorts_by_the_scores_of_its_parts_alone(model):
    """The segmenter is wrong, the detector says nothing, the classifier knows."""
    found = systems(model(), places((0.5, None, SURE), (0.6, None, UNSURE)))
    assert found[SEGMENTER]["sensitivity_at"]["2"]["value"] == found[BOTH]["sensitivity_at"]["2"]["value"] == 0
    assert found[SEGMENTER]["sensitivity_at"]["4"]["value"] == 1  # four false findings per scan, above all nodules
    for name in (CLASSIFIED, WITHOUT_DETECTOR):
        assert {one["value"] for one in found[name]["sensitivity_at"].values()} == {1}
        assert found[name]["cpm"]["value"] == 1
    assert found[BOTH]["detector_adds"]["value"] == found[CLASSIFIED]["detector_adds"]["value"] == 0
    assert found[SEGMENTER]["detector_adds"] is None


def test_a_model_without_a_part_is_measured_by_its_other_parts(model):
    found = places((SURE, None, None), (UNSURE, None, None))
    alone = detection.study("x", [without(model(classifier=False), "detector")], found).report
    assert list(alone["systems"]) == [detection.SEGMENTER]
    assert "segmenter alone" in detection.render(alone)
    classified = detection.study("x", [without(model("two"), "detector")], found).report
    assert list(classified["systems"]) == [detection.SEGMENTER, detection.WITHOUT_DETECTOR]


def without(model, part):
    """Return a model that lacks a part."""
    return replace(model, card={key: value for key, value in model.card.items() if key != part})


def test_what_a_detector_adds_is_the_difference_of_the_same_findings(model):
    found = systems(model(), places((0.5, SURE, 0.5), (0.6, None, 0.6)))
    assert found[BOTH]["cpm"]["value"] == found[CLASSIFIED]["cpm"]["value"] == 1
    assert found[BOTH]["detector_adds"]["value"] == pytest.approx(1 - found[SEGMENTER]["cpm"]["value"])
    assert found[BOTH]["detector_adds"]["value"] > 0.5


def test_every_bootstrap_sample_has_as_many_whole_scans(model):
    """In a sample of crops alone nothing would be false, and every nodule found."""
    found = places((0.5, None, 0.5), (0.6, None, 0.6))
    for name in (SEGMENTER, CLASSIFIED):
        values = systems(model(name[:4]), found)[name]["sensitivity_at"]
        assert (values["2"]["value"], values["2"]["high"]) == (0, 0)
    report = detection.study("m", [model("one")], [found[0], *found[2:]]).report
    assert detection.ONE_SCAN in detection.render(report)


def test_nodules_of_scans_and_crops_count_and_false_findings_of_scans_alone(model):
    made = detection.study("made up", [model()], places((0.9, None, 0.9), (0.5, None, 0.5)))
    report = made.report
    assert (report["nodules"], report["nodules_in_scans"], report["scans"], report["patients"]) == (4, 1, 2, 5)
    assert made.curves[SEGMENTER].false_per_scan[-1] == 4
    text = detection.render(report)
    assert "4 nodules of 5 patients, 1 of them in 2 whole scans; fold 0." in text
    assert "flatters it" not in text


def test_large_findings_that_nobody_outlined_are_left_out(model):
    found = places((0.5, None, 0.5), (0.4, None, 0.4))
    found[0].rows.append(finding("s0", scores=(0.99, None, 0.99), diameter=scan_findings.LARGEST_OUTLINED_MM + 1))
    assert detection.study("m", [model()], found).report["systems"][SEGMENTER]["cpm"]["value"] == 1
    found[0].rows[-1] = replace(found[0].rows[-1], diameter_mm=20.0)
    assert detection.study("m", [model("n")], found).report["systems"][SEGMENTER]["cpm"]["value"] < 1


def test_sensitivity_by_size_is_of_nodules_of_that_size(model):
    found = places((0.9, None, 0.9), (0.5, None, 0.5))
    found[2].rows[0] = replace(found[2].rows[0], segmenter=0.1)  # the crop of 5 mm
    by_group = systems(model(), found)[SEGMENTER]["by_group"]
    values = {group: (one["nodules"], one["sensitivity"]["value"]) for group, one in by_group.items()}
    assert values["under 6 mm"] == (1, 0)
    assert values["6 to 10 mm"] == (2, 1)  # of a crop and of a scan
    assert values["10 mm and over"] == (1, 1)
    assert values["solid (texture from 4)"] == (3, 0.66667)  # nobody rated that of the scan
    assert "ground-glass (texture up to 2)" not in values


def test_networks_that_saw_the_patients_are_named(model):
    text = detection.render(detection.study("m", [model(saw=("detector",))], places((0.9,) * 3, (0.5,) * 3)).report)
    assert "The detector of fold 0 was trained on crops of these patients, which flatters it." in text
    assert "classifier of fold" not in text


@pytest.fixture
def data(tmp_path):
    """Crops of two folds, of which one nodule has no diameter of LUNA16, and a whole scan of a patient of each."""
    small_data.write_crops(tmp_path / "data")
    small_data.without_diameter(tmp_path / "data", 4)
    small_data.write_scans(tmp_path / "data", {"patient-0": [4, 2], "patient-1": [3, 3]})
    crops = tmp_path / "data" / "crops" / "luna16_crops"
    scans = tmp_path / "data" / "scans" / "lidc_scans.h5"
    return ["--crops", f"{crops}.h5", "--table", f"{crops}.csv", "--scans", str(scans), "--device", "cpu"]


def test_every_model_searches_what_it_held_out(model, data, tmp_path, capsys, monkeypatch):
    folds = [str(model(f"fold-{n}", n).folder) for n in (0, 1)]
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = ["crossvalidate", *folds, str(out), "--name", "tiny", *data, "--cache", str(cache)]
    assert main(command) == 0
    report = json.loads((out / "detection.json").read_text())
    assert [(fold["folds"], fold["scans"]) for fold in report["folds"]] == [([0], 1), ([1], 1)]
    assert (report["nodules"], report["nodules_in_scans"]) == (7, 3)  # 1 and 2 in scans, two crops of each fold
    rows = list(csv.DictReader((out / "findings.csv").open()))
    found = {(row["fold"], row["scan"]) for row in rows}
    assert ("0", "scan-0") in found
    assert ("1", "scan-1") in found
    assert not {("0", "crop 0"), ("1", "crop 1")} & found  # the patients have a whole scan
    assert {name for fold, name in found if fold == "0" and "crop" in name} == {"crop 2", "crop 4"}
    assert {path.name for path in out.iterdir()} == {"findings.csv", "detection.json", "detection.md", "froc.png"}
    assert "| segmenter alone (L-RF) |" in capsys.readouterr().out

    for name in ("score_scan", "score_crop"):  # all that was found is kept
        monkeypatch.setattr(scan_findings, name, lambda *_: pytest.fail("searched again"))
    assert main([*command, "--overwrite"]) == 0
    assert json.loads((out / "detection.json").read_text()) == report
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_folds_that_do_not_fit_are_refused(model, data, tmp_path, capsys):
    first, again = model("first"), model("again")
    bare = model("bare", 1, classifier=False)
    for names, expected in (
        ([first, again], "Fold 0 is held out by two models, expected one"),
        ([first, bare], "has generator and detector, expected generator and detector and classifier as of first"),
        ([write_model(tmp_path / "silent", classifier=True)], "names no fold that its generator held out"),
    ):
        folders = [str(one.folder) for one in names]
        assert main(["crossvalidate", *folders, str(tmp_path / "out"), "--name", "x", *data]) == 2
        assert expected in capsys.readouterr().err


def test_options_of_the_other_kind_are_refused(model, data, tmp_path, capsys):
    folder, out = str(model().folder), str(tmp_path / "out")
    assert main(["crossvalidate", folder, out, "--name", "x", *data[:4]]) == 2
    assert "expected --scans FILE.h5" in capsys.readouterr().err
    assert main(["crossvalidate", folder, out, "--name", "x", *data, "--trim"]) == 2
    assert "none of --half-turn" in capsys.readouterr().err
    assert main(["crossvalidate", str(tmp_path / "last.pt"), out, "--name", "x", *data]) == 2
    assert "--scans goes with models" in capsys.readouterr().err
