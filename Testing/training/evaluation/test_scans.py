"""Evaluation with predictors whose result is known, on synthetic and real scans, the cards and the command line."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_data import CARD, QUIET, ball, perfect, read_csv
from LNHGLib.errors import InputError
from LNHGLib.image.volume import Grid, Source, Volume, write_image
from LNHGLib.measurement.size import measure
from LNHGLib.segmentation.pipeline import Nodule, Result
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.evaluation import metrics, run, scans, summary
from LNHGTrainingLib.evaluation.crops import Selection
from LNHGTrainingLib.evaluation.matching import Finding, ReferenceNodule, match_findings
from LNHGTrainingLib.release import model_card

SHAPE = (24, 60, 60)
GRID = Grid.aligned(SHAPE, (2.5, 0.8, 0.8), (-20.0, 30.0, 100.0))


def reference(label, center, radius, readers):
    mask = ball(center, radius, SHAPE)
    box = tuple(slice(int(c.min()), int(c.max()) + 1) for c in np.nonzero(mask))
    return ReferenceNodule(
        label, box, np.stack([mask[box]] * readers), GRID.index_to_lps(np.array(center)), 2 * 0.8 * radius
    )


NODULES = [reference(1, (12, 15, 15), 4, 4), reference(2, (12, 15, 45), 3, 3), reference(3, (12, 45, 15), 3, 1)]


def finding(number, center, score=0.9, provenance="fused"):
    center = np.array(center, float)
    return Finding(number, score, provenance, GRID.index_to_lps(center), center)


def matched(findings, masks):
    labels = np.zeros(SHAPE, np.uint16)
    for number, mask in masks.items():
        labels[mask] = number
    return {v.finding.number: (v.outcome, v.nodule, v.luna) for v in match_findings(findings, labels, NODULES)}


def test_a_segmentation_with_its_centroid_in_the_consensus_is_a_hit():
    found = matched([finding(1, (12, 15, 15))], {1: ball((12, 15, 15), 4, SHAPE)})
    assert found == {1: ("hit", 1, "hit")}


def test_the_best_scored_finding_takes_the_nodule_and_the_other_is_ignored():
    findings = [finding(1, (12, 15, 14), 0.4), finding(2, (12, 15, 16), 0.8)]
    assert matched(findings, {}) == {1: ("ignored", 1, "ignored"), 2: ("hit", 1, "hit")}


def test_a_finding_on_a_nodule_of_fewer_readers_is_ignored():
    overlapping = matched([finding(1, (12, 50, 20))], {1: ball((12, 47, 17), 3, SHAPE)})
    within_radius = matched([finding(1, (12, 46, 15))], {})
    assert overlapping[1][:2] == within_radius[1][:2] == ("ignored", 3)


def test_a_finding_off_every_nodule_is_false():
    assert matched([finding(1, (12, 30, 30))], {1: ball((12, 30, 30), 3, SHAPE)})[1] == ("false", None, "false")


def test_a_finding_that_touches_a_nodule_with_its_centroid_outside_is_false():
    smear = ball((12, 15, 15), 4, SHAPE) | ball((12, 15, 25), 8, SHAPE)
    assert matched([finding(1, (12, 15, 24))], {1: smear})[1] == ("false", 1, "false")


def test_a_box_is_never_a_hit_but_counts_as_false_off_every_nodule():
    on = matched([finding(1, (12, 15, 15), provenance="detector-box")], {})
    off = matched([finding(1, (12, 30, 30), provenance="detector-box")], {})
    assert on[1] == ("ignored", 1, "hit")
    assert off[1] == ("false", None, "false")


def test_a_box_does_not_take_the_nodule_from_a_segmentation():
    findings = [finding(1, (12, 15, 15), 0.9, "detector-box"), finding(2, (12, 15, 15), 0.5)]
    assert matched(findings, {2: ball((12, 15, 15), 4, SHAPE)})[2][0] == "hit"


def nodule(number, mask, score, provenance="fused", grid=GRID):
    center = grid.index_to_lps(np.argwhere(mask).mean(axis=0))
    box = (tuple(center - 2), tuple(center + 2))
    measured = None if provenance == "detector-box" else measure(np.zeros(mask.shape, np.int16), grid, mask)
    return Nodule(number, score, provenance, box, None, None, measured, None)


def result(volume, entries):
    """A pipeline result: (mask, score, provenance) a finding, numbered from 1; boxes leave no voxels."""
    labels = np.zeros(volume.grid.shape, np.uint16)
    nodules = []
    for number, (mask, score, provenance) in enumerate(entries, 1):
        nodules.append(nodule(number, mask, score, provenance, volume.grid))
        if provenance != "detector-box":
            labels[mask] = number
    return Result(volume, labels, labels.astype(np.float32), nodules, {})


def case(name="a", patient="P1", nodules=NODULES):
    volume = Volume(np.full(SHAPE, -800, np.int16), GRID, Source(name))
    return scans.AnnotatedScan(name, patient, "1.2", volume, list(nodules))


ORACLE = [(ball((12, 15, 15), 4, SHAPE), 0.9, "fused"), (ball((12, 15, 45), 3, SHAPE), 0.8, "segmenter")]
PLANTED = [(ball((12, 30, 30), 2, SHAPE), 0.7, "fused"), (ball((12, 45, 45), 2, SHAPE), 0.6, "detector-box")]


def test_a_perfect_pipeline_finds_all_with_dice_one_and_no_false_findings():
    results = scans.evaluate_scans([case()], lambda volume: result(volume, ORACLE), 0.5)
    report = summary.scan_metrics(results)
    assert [n.dice for n in results.nodules] == [1.0, 1.0, 0.0]
    assert report["groups"]["all"]["dice_all"]["value"] == 1.0
    assert report["groups"]["all"]["nodules"] == 2
    assert report["operating_point"]["consensus"]["sensitivity"]["value"] == 1.0
    assert report["operating_point"]["consensus"]["false"] == 0
    assert report["froc"]["consensus"]["cpm"]["value"] == 1.0


def test_an_empty_pipeline_scores_zero():
    report = summary.scan_metrics(scans.evaluate_scans([case()], lambda volume: result(volume, []), 0.5))
    assert report["groups"]["all"]["dice_all"]["value"] == 0.0
    assert report["froc"]["consensus"]["cpm"]["value"] == 0.0
    assert report["cases"][0]["false"] == 0


def test_planted_false_findings_are_counted_exactly():
    low = [(ball((5, 30, 30), 2, SHAPE), 0.2, "fused")]
    results = scans.evaluate_scans(
        [case("a"), case("b", "P2")],
        lambda volume: result(volume, ORACLE + (PLANTED + low if volume.source.path == "a" else [])),
        0.5,
    )
    report = summary.scan_metrics(results)
    point = report["operating_point"]["consensus"]
    assert (point["false"], point["false_worst_scan"], point["false_per_scan"]["value"]) == (2, 2, 1.0)
    assert [c["false"] for c in report["cases"]] == [2, 0]
    assert sum(f.outcome == "false" for f in results.findings) == 3


def test_a_hit_below_the_threshold_is_missed_there_but_counts_in_the_froc():
    weak = [(mask, 0.3, provenance) for mask, _, provenance in ORACLE]
    results = scans.evaluate_scans([case()], lambda volume: result(volume, weak), 0.5)
    report = summary.scan_metrics(results)
    assert [n.found for n in results.nodules] == [0, 0, 0]
    assert report["groups"]["all"]["dice_all"]["value"] == 0.0
    assert report["froc"]["consensus"]["cpm"]["value"] == 1.0


def test_dice_and_volume_of_a_hit_are_taken_on_the_scans_own_grid():
    larger = [(ball((12, 15, 15), 5, SHAPE), 0.9, "fused")]
    scored = scans.evaluate_scans([case()], lambda volume: result(volume, larger), 0.5).nodules[0]
    mine, theirs = ball((12, 15, 15), 5, SHAPE), ball((12, 15, 15), 4, SHAPE)
    assert scored.dice == pytest.approx(metrics.dice(mine, theirs))
    assert scored.hd95_mm == pytest.approx(metrics.hd95_mm(mine, theirs, (2.5, 0.8, 0.8)))
    assert scored.volume_mm3 == pytest.approx(mine.sum() * 2.5 * 0.8 * 0.8)
    assert scored.volume_error == pytest.approx(mine.sum() / theirs.sum() - 1)


def write_case(folder, name, patient, nodules=NODULES):
    folder = folder / name
    folder.mkdir(parents=True)
    array = np.full(SHAPE, -850, np.int16)
    array[:, :20] = 40
    write_image(array, GRID, folder / "ct.nii.gz")
    for reader in range(4):
        labels = np.zeros(SHAPE, np.uint8)
        for item in nodules:
            if reader < len(item.readers):
                labels[item.box][item.readers[reader]] = item.label
        write_image(labels, GRID, folder / f"mask_reader{reader + 1}.nii.gz")
    stated = [{"label": n.label, "max_axial_diameter_mm": n.diameter_mm} for n in nodules]
    (folder / "meta.json").write_text(json.dumps({"case": name, "patient_id": patient, "nodules": stated}))
    return folder


def test_a_case_is_read_with_the_readers_of_each_nodule(tmp_path):
    read = scans.read_case(write_case(tmp_path, "a", "P1"))
    assert (read.name, read.patient) == ("a", "P1")
    assert [(n.label, len(n.readers), n.counts) for n in read.nodules] == [(1, 4, True), (2, 3, True), (3, 1, False)]
    for got, wanted in zip(read.nodules, NODULES, strict=True):
        assert got.box == wanted.box
        assert np.array_equal(got.consensus, wanted.consensus)
        np.testing.assert_allclose(got.center_lps_mm, wanted.center_lps_mm, atol=1e-3)


def test_a_scan_without_nodules_counts_for_the_false_findings(tmp_path):
    folder = write_case(tmp_path, "healthy", "P3", [])
    read = scans.read_case(folder)
    report = summary.scan_metrics(
        scans.evaluate_scans(
            [read, case()], lambda volume: result(volume, PLANTED if volume is read.volume else ORACLE), 0.5
        )
    )
    assert report["operating_point"]["consensus"]["false_per_scan"]["value"] == 1.0
    assert report["operating_point"]["consensus"]["nodules"] == 2


def test_cases_that_are_not_complete_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no case"):
        scans.find_cases(tmp_path)
    folder = write_case(tmp_path, "a", "P1")
    for mask in folder.glob("mask_*"):
        mask.unlink()
    with pytest.raises(InputError, match="names 3 nodules but has neither mask_reader1"):
        scans.read_case(folder)
    (folder / "ct.nii.gz").unlink()
    with pytest.raises(InputError, match="has no CT"):
        scans.read_case(folder)
    (folder / "meta.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON with a label for each nodule"):
        scans.read_case(folder)


def test_a_folder_of_scans_gives_tables_summary_and_plots(tmp_path):
    write_case(tmp_path / "cases", "a", "P1")
    write_case(tmp_path / "cases", "b", "P2")
    report = run.run_scans(
        CARD, lambda volume: result(volume, ORACLE[:1] + PLANTED), tmp_path / "cases", tmp_path / "out", None, QUIET
    )
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [
            "nodules.csv",
            "findings.csv",
            "summary.json",
            "summary.md",
            "froc.png",
            "dice_vs_diameter.png",
            "bland_altman.png",
        ]
    )
    rows = read_csv(out / "findings.csv")
    assert [r["outcome"] for r in rows] == ["hit", "false", "false"] * 2
    assert [(r["case"], r["found"]) for r in read_csv(out / "nodules.csv") if r["counts"] == "1"] == [
        ("a", "1"), ("a", "0"), ("b", "1"), ("b", "0"),
    ]  # fmt: skip
    assert report["groups"]["all"]["dice_all"]["value"] == 0.5
    text = (out / "summary.md").read_text()
    assert "Found 2 of 4 nodules on 2 scans, mean Dice 0.500" in text
    assert "2.00 (2.00 to 2.00) false findings a scan" in text
    assert "| a | 2 | 1 | 0.500 | 0.767 | 2 | 0 |" in text
    assert "| precision at the model's threshold | 0.333 (0.333 to 0.333) |" in text


def test_the_readers_consensus_on_a_real_scan_scores_one(data_dir):
    folder = data_dir / "ct" / "lidc-idri-0003"
    read = scans.read_case(folder)
    stated = json.loads((folder / "meta.json").read_text())["nodules"]
    assert [len(n.readers) for n in read.nodules] == [n["readers"] for n in stated]
    unit = read.volume.grid.voxel_volume_mm3
    np.testing.assert_allclose(
        [n.consensus.sum() * unit for n in read.nodules], [n["volume_mm3"] for n in stated], rtol=1e-3
    )
    np.testing.assert_allclose(
        [n.center_lps_mm for n in read.nodules], [n["centroid_lps_mm"] for n in stated], atol=0.05
    )

    def oracle(volume):
        masks = []
        for item in read.nodules:
            masks.append(np.zeros(volume.grid.shape, bool))
            masks[-1][item.box] = item.consensus
        return result(volume, [(mask, 0.9, "fused") for mask in masks])

    results = scans.evaluate_scans([read], oracle, 0.5)
    assert [n.dice for n in results.nodules] == [1.0, 1.0, 1.0, 0.0]
    assert sorted(f.outcome for f in results.findings) == ["hit", "hit", "hit", "ignored"]


# The card


def report_for(files, tmp_path, crops):
    return run.run_crops(CARD | {"files": files}, perfect, crops, tmp_path / "out", Selection(), QUIET)


@pytest.fixture
def model_folder(tmp_path):
    """A model folder that can be loaded: a generator of width 2 with random weights."""
    from LNHGLib.models.registry import build_generator
    from safetensors.torch import save

    folder = tmp_path / "tiny"
    folder.mkdir()
    files = {
        "generator.safetensors": save(build_generator(CARD["generator"]).state_dict()),
        "detector.safetensors": b"none",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    shas = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    (folder / "model.json").write_text(json.dumps(CARD | {"files": shas}))
    return folder


def test_the_card_holds_the_measured_results_and_the_readme_shows_them(crops, model_folder, tmp_path, no_plots):
    files = json.loads((model_folder / "model.json").read_text())["files"]
    report = report_for(files, tmp_path, crops)
    model_card.update(model_folder, report)
    written = json.loads((model_folder / "model.json").read_text())
    assert written["results"]["crops"] == report
    assert written["files"] == files
    readme = (model_folder / "README.md").read_text()
    assert "Mean Dice 1.000 (1.000 to 1.000) on 6 nodules of 3 patients" in readme
    assert "CC BY 4.0" in readme
    assert "| generator.loss.mse | 10.0 |" in readme
    assert "| patients | 2 |" in readme
    assert "P9" not in readme


def test_results_of_other_weights_neither_enter_nor_stay_in_the_card(crops, model_folder, tmp_path, no_plots):
    path = model_folder / "model.json"
    old = json.loads(path.read_text())
    with pytest.raises(ValueError, match="other weights"):
        model_card.update(model_folder, report_for({"generator.safetensors": "c" * 64}, tmp_path, crops))
    stale = {"scans": {"model": {"sha256": {"generator.safetensors": "d" * 64}}}}
    path.write_text(json.dumps(old | {"results": stale}))
    report = report_for(old["files"], tmp_path / "again", crops)
    model_card.update(model_folder, report)
    assert list(json.loads(path.read_text())["results"]) == ["crops"]


# The command line


def test_evaluate_scores_a_model_folder_and_writes_its_card(crops, model_folder, tmp_path, capsys, no_plots):
    arguments = ["evaluate", "--model", model_folder, "--crops", crops[0], "--table", crops[1], "--folds", "0,1"]
    status = main([*map(str, arguments), "--limit", "2", "--device", "cpu", "--write-card", str(tmp_path / "out")])
    assert (status, capsys.readouterr().out.splitlines()[-1]) == (0, str(tmp_path / "out"))
    assert len(read_csv(tmp_path / "out" / "nodules.csv")) == 2
    assert "crops" in json.loads((model_folder / "model.json").read_text())["results"]


def test_evaluate_runs_the_pipeline_at_a_low_threshold_and_judges_at_the_models(tmp_path, monkeypatch, no_plots):
    asked = []

    def segment(volume, model, *, device, threshold):
        asked.append((model.card["name"], device, threshold))
        return result(volume, [*ORACLE[:1], (ball((12, 15, 45), 3, SHAPE), 0.3, "fused")])

    monkeypatch.setattr("LNHGLib.segmentation.pipeline.segment", segment)
    monkeypatch.setattr("LNHGLib.models.folder.load", lambda _: SimpleNamespace(card=CARD))
    write_case(tmp_path / "cases", "a", "P1")
    out = tmp_path / "out"
    arguments = ["evaluate", "--model", "tiny", "--scans", tmp_path / "cases", "--device", "cpu", out]
    assert main([str(argument) for argument in arguments]) == 0
    assert asked == [("tiny", "cpu", 0.05)]
    assert [r["found"] for r in read_csv(out / "nodules.csv")] == ["1", "0", "0"]
    assert [r["above_threshold"] for r in read_csv(out / "findings.csv")] == ["1", "0"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "COMMAND"),
        (["evaluate", "--model", "m", "out"], "--crops"),
        (["evaluate", "--model", "m", "--crops", "c.h5", "out"], "without --table"),
        (["evaluate", "--model", "m", "--crops", "c.h5", "--table", "t.csv", "out"], "c.h5 does not exist"),
        (["evaluate", "--model", "m", "--crops", "c.h5", "--folds", "a", "out"], "--folds"),
        (["evaluate", "--model", "m", "--scans", "nowhere", "out"], "nowhere does not exist"),
        (["evaluate", "--model", "m", "--scans", ".", "--folds", "0", "out"], "go with --crops"),
        (["evaluate", "--model", "m", "--scans", ".", "--limit", "0", "out"], "--limit is 0"),
        (["evaluate", "--model", "no-such-model", "--scans", ".", "out"], "no-such-model"),
        (["train", "segmenter", "--config", "no.toml", "--data", ".", "out"], "no.toml cannot be read"),
        (["train", "critic", "--config", "no.toml", "--data", ".", "out"], "critic"),
        (["export", "a.pt", "b.pt", "--config", "no.toml", "out"], "a.pt does not exist"),
    ],
)
def test_wrong_arguments_end_with_status_two_and_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert sentence in lines[0]
    assert not Path("out").exists()


def test_a_failure_ends_with_status_one_and_one_sentence(monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise RuntimeError("the disk\nis full")

    monkeypatch.setattr("LNHGTrainingLib.evaluation.run.run_scans", fail)
    monkeypatch.setattr("LNHGLib.models.folder.load", lambda _: SimpleNamespace(card=CARD))
    assert main(["evaluate", "--model", "m", "--scans", str(tmp_path), str(tmp_path / "out")]) == 1
    assert (
        capsys.readouterr().err
        == "lnhg-train: failed: RuntimeError: the disk is full; set LNHG_DEBUG=1 to see where.\n"
    )


def test_a_broken_configuration_is_refused_with_its_place(tmp_path, capsys):
    config = tmp_path / "broken.toml"
    config.write_text("steps = = 3\n")
    assert main(["train", "segmenter", "--config", str(config), "--data", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "is no valid TOML" in capsys.readouterr().err
