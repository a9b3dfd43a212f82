"""Model folders: what is accepted, what is refused and in which words."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from LNHGLib.errors import InputError
from LNHGLib.models import archive as model_archive
from LNHGLib.models import card as model_card
from LNHGLib.models import folder as models
from LNHGLib.models import registry
from LNHGLib.paths import BUNDLED_MODELS
from tiny_model import write_model


@pytest.fixture(scope="module")
def a_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny").folder


@pytest.fixture
def a_copy(a_folder, tmp_path):
    return Path(shutil.copytree(a_folder, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def user_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LNHG_MODELS", str(tmp_path / "user"))
    monkeypatch.setattr(models, "BUNDLED", tmp_path / "bundled")
    return tmp_path / "user"


def change(folder, key, value):
    """Set a key of the card by its dotted name; `...` removes it."""
    card = json.loads((folder / "model.json").read_text())
    *path, last = key.split(".")
    part = card
    for name in path:
        part = part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    (folder / "model.json").write_text(json.dumps(card))


def test_a_valid_folder_verifies_and_loads_by_its_path(a_folder):
    assert models.verify(a_folder).name == models.load(str(a_folder)).name == "tiny"


def test_the_generator_has_the_files_weights_and_is_frozen_for_inference(a_folder):
    generator = models.load(a_folder).generator()
    assert generator.last.bias.item() == pytest.approx(-0.35)
    assert not generator.training
    assert not any(p.requires_grad for p in generator.parameters())


def test_the_detector_is_built_from_the_card(a_folder):
    detector = models.load(a_folder).detector()
    (output,) = detector([torch.zeros(3, 64, 64)])
    assert set(output) == {"boxes", "scores", "labels"}


@pytest.mark.parametrize("name", ["generator.safetensors", "detector.safetensors"])
def test_a_changed_file_is_refused_with_both_checksums(a_copy, name):
    content = bytearray((a_copy / name).read_bytes())
    content[-1] ^= 1
    (a_copy / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} was changed: its SHA-256 is {hashlib.sha256(content).hexdigest()}"):
        models.load(a_copy)


def test_a_file_changed_after_loading_the_card_is_refused_too(a_copy):
    model = models.load(a_copy)
    (a_copy / "generator.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="was changed"):
        model.generator()


def test_a_missing_file_is_refused(a_copy):
    (a_copy / "detector.safetensors").unlink()
    with pytest.raises(InputError, match=r"detector\.safetensors is missing"):
        models.verify(a_copy)


def test_a_file_that_the_card_does_not_list_is_refused(a_copy):
    (a_copy / "extra.pkl").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds extra\.pkl"):
        models.verify(a_copy)


def test_a_readme_beside_the_card_is_welcome(a_copy):
    (a_copy / "README.md").write_text("About.")
    assert models.verify(a_copy).name == "tiny"


def test_weights_that_do_not_fit_the_described_network_are_refused(a_copy):
    change(a_copy, "generator.width", 2)
    with pytest.raises(InputError, match="does not fit the generator"):
        models.load(a_copy).generator()


def test_a_long_message_of_a_library_is_shortened(a_copy):
    header = json.dumps({"w": {"dtype": "I6<", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = a_copy / "generator.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    files = json.loads((a_copy / "model.json").read_text())["files"]
    change(a_copy, "files", files | {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()})
    with pytest.raises(InputError, match="does not fit the generator") as refused:
        models.load(a_copy).generator()
    assert len(str(refused.value).replace(str(a_copy), "")) < 250


def test_an_unknown_kind_of_network_is_refused_in_a_sentence(a_copy):
    change(a_copy, "generator.kind", "other")
    with pytest.raises(InputError, match=r"'generator\.kind' is 'other', expected paper or "):
        models.load(a_copy)
    with pytest.raises(ValueError, match="'other' is unknown"):
        registry.build_generator({"kind": "other"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 2),
        ("name", "No Name"),
        ("description", ...),
        ("licence", ""),
        ("grid", {"kind": "cube"}),
        ("grid.spacing_mm", [1, 0, 1]),
        ("grid.spacing_mm", ...),
        ("grid.size", 256),
        ("generator.plane", 3),
        ("generator.width", 0),
        ("generator.input_skip", 1),
        ("detector.anchors", [4, 8]),
        ("author", "somebody"),
        ("window_hu", [400, -1000]),
        ("generator", ...),
        ("generator.weights", "generator.pkl"),
        ("generator.weights", "../generator.safetensors"),
        ("generator.threshold", "high"),
        ("detector.slice_step_mm", 0),
        ("detector.min_score", 2),
        ("fusion.overlap", "near"),
        ("fusion.margin_px", 5),
        ("threshold", 1.2),
        ("threshold", True),
        ("files", {"generator.safetensors": "abc"}),
    ],
)
def test_a_malformed_card_is_refused_by_the_name_of_the_key(a_copy, key, value):
    change(a_copy, key, value)
    with pytest.raises(InputError, match=f"'{key}'"):
        models.verify(a_copy)


def test_a_card_without_a_detector_gives_it_no_weight(a_copy):
    change(a_copy, "detector", ...)
    with pytest.raises(InputError, match=r"'fusion.weight' is 0.5, expected 0 in a card without a detector"):
        models.read(a_copy)
    change(a_copy, "fusion.weight", 0)
    model = models.read(a_copy)
    assert model.spec.detector is None
    with pytest.raises(InputError, match="The model tiny has no detector, expected one"):
        model.detector()


def test_weights_without_a_checksum_are_refused(a_copy):
    change(a_copy, "files", {"detector.safetensors": "0" * 64})
    with pytest.raises(InputError, match=r"'files' lacks 'generator\.safetensors'"):
        models.read(a_copy)


@pytest.mark.parametrize(("key", "value"), [("", "a name"), (".weights", "second.pkl"), (".weights", ...)])
def test_a_malformed_second_generator_is_refused_by_the_name_of_the_key(tmp_path, key, value):
    folder = write_model(tmp_path / "both", second=True).folder
    change(folder, f"second_generator{key}", value)
    with pytest.raises(InputError, match=f"'second_generator{key}'"):
        models.verify(folder)


def test_a_second_generator_is_checked_and_loaded_like_the_first(a_folder, tmp_path):
    assert models.load(a_folder).second_generator() is None
    folder = write_model(tmp_path / "both", second=True).folder
    second = models.load(folder).second_generator()
    assert not second(torch.ones(1, 1, 3, 8, 8)).any()
    change(folder, "files", dict.fromkeys(("generator.safetensors", "detector.safetensors"), "0" * 64))
    with pytest.raises(InputError, match=r"'files' lacks 'second_generator\.safetensors'"):
        models.read(folder)


CLASSIFIER = {"kind": "residual", "width": 8, "weights": "classifier.safetensors"}
PROBABILITY = {"intercept": -3.0, "segmenter": 0.5, "detector": 0.25, "classifier": 1.0, "log_diameter": 0.5}
FROC = {
    "thresholds": [0.9, 0.5, 0.1],
    "found": [2, 3, 4],
    "false_per_scan": [0.0, 0.5, 2],
    "nodules": 4,
    "scans": 2,
    "rests_on": "two scans",
}


@pytest.fixture
def a_scored_copy(a_copy):
    """A model with a classifier and scores that are probabilities; the classifier's file is never read."""
    (a_copy / "classifier.safetensors").write_bytes(b"weights")
    card = json.loads((a_copy / "model.json").read_text())
    card["files"]["classifier.safetensors"] = hashlib.sha256(b"weights").hexdigest()
    card |= {"classifier": CLASSIFIER, "probability": PROBABILITY, "froc": FROC}
    (a_copy / "model.json").write_text(json.dumps(card))
    return a_copy


def test_the_parts_on_scores_are_typed_values(a_scored_copy):
    spec = models.verify(a_scored_copy).spec
    assert spec.classifier.kind == "residual"
    assert spec.classifier.options == {"width": 8}
    assert spec.probability.log_diameter == 0.5
    assert spec.froc.found == (2, 3, 4)
    assert spec.froc.rests_on == "two scans"


def test_a_card_without_the_parts_on_scores_has_none_of_them(a_folder):
    spec = models.verify(a_folder).spec
    assert (spec.classifier, spec.probability, spec.froc) == (None, None, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classifier", []),
        ("classifier.kind", "resnet-50"),
        ("classifier.width", 0),
        ("classifier.weights", "classifier.pt"),
        ("classifier.kind", ...),
        ("classifier.depth", 48),
        ("probability", 0.5),
        *((f"probability.{name}", ...) for name in PROBABILITY),
        ("probability.segmenter", "0.5"),
        ("probability.slope", 1.0),
        ("probability.intercept", float("nan")),
        *((f"froc.{name}", ...) for name in FROC),
        ("froc.thresholds", [0.1, 0.5, 0.9]),
        ("froc.thresholds", [1.1, 0.5, 0.1]),
        ("froc.found", [2, 1, 4]),
        ("froc.found", [2, 3, 5]),
        ("froc.found", [2, 3.5, 4]),
        ("froc.found", [2, 3]),
        ("froc.false_per_scan", [0.0, 0.5]),
        ("froc.false_per_scan", [0.0, -0.5, 2]),
        ("froc.nodules", 0),
        ("froc.rests_on", ""),
        ("froc.sensitivity", [0.5, 0.75, 1]),
    ],
)
def test_a_malformed_part_on_scores_is_refused_by_the_name_of_the_key(a_scored_copy, key, value):
    change(a_scored_copy, key, value)
    with pytest.raises(InputError, match=f"'{key}'"):
        models.read(a_scored_copy)


def test_a_classifier_without_a_checksum_is_refused(a_copy):
    change(a_copy, "classifier", CLASSIFIER)
    with pytest.raises(InputError, match=r"'files' lacks 'classifier\.safetensors'"):
        models.read(a_copy)


@pytest.mark.parametrize("part", ["generator", "second_generator"])
def test_a_misspelled_key_is_refused_and_the_right_ones_are_named(tmp_path, part):
    """`"plane": 3` in the place of `"planes": 3` would silently run another model."""
    folder = write_model(tmp_path / "both", second=True).folder
    change(folder, f"{part}.kind", "gated-unet")
    change(folder, f"{part}.plane", 3)
    with pytest.raises(InputError, match=f"'{part}.plane' is unknown, expected one of .*planes"):
        models.read(folder)


def test_the_keys_of_a_card_are_those_that_build_the_networks():
    assert {kind: network.options for kind, network in registry.KINDS.items()} == model_card.GENERATOR_OPTIONS


def test_a_card_of_the_first_version_is_read_with_its_old_words():
    spec = models.read(BUNDLED_MODELS / "lnhg-1mm").spec
    assert spec.generator.rotate_180
    assert spec.generator.options == {"width": 16, "input_skip": True}


def test_networks_are_read_and_built_once(a_folder, monkeypatch):
    reads = []
    content = models._checked_content
    monkeypatch.setattr(models, "_checked_content", lambda model, name: reads.append(name) or content(model, name))
    model = models.load(a_folder)
    reads.clear()
    assert model.generator() is model.generator()
    assert model.detector() is model.detector("cpu")
    assert reads == ["generator.safetensors", "detector.safetensors"]


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_card_that_is_no_json_object_is_refused(a_copy, content):
    (a_copy / "model.json").write_text(content)
    with pytest.raises(InputError, match=r"model\.json"):
        models.read(a_copy)


def test_a_folder_without_card_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no model\.json"):
        models.verify(tmp_path)


def test_an_added_model_is_available_by_name(a_folder, user_folder):
    assert models.add(a_folder).folder == user_folder / "tiny"
    assert models.load("tiny").folder == user_folder / "tiny"
    assert sorted(p.name for p in user_folder.iterdir()) == ["tiny"]


def test_a_model_is_not_added_twice(a_folder):
    models.add(a_folder)
    with pytest.raises(InputError, match="'tiny' is already there"):
        models.add(a_folder)


def test_a_damaged_model_is_not_added_and_leaves_nothing(a_copy, user_folder):
    (a_copy / "detector.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="was changed"):
        models.add(a_copy)
    assert not user_folder.exists()


def zipped(folder, path, prefix="", **more):
    """Pack a model folder below `prefix`; `more` holds names and contents beside it."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{prefix}{file.name}")
        for name, content in more.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("prefix", ["", "tiny/", "models/tiny/"])
def test_a_zipped_model_is_added_wherever_it_lies_in_the_archive(a_folder, user_folder, tmp_path, prefix):
    archive = zipped(a_folder, tmp_path / "tiny.zip", prefix, **{"__MACOSX/._model.json": "junk", f"{prefix}.DS": ""})
    added = models.add(archive)
    assert added.folder == user_folder / "tiny"
    assert sorted(p.name for p in added.folder.iterdir()) == sorted(p.name for p in a_folder.iterdir())
    assert models.load("tiny").folder == added.folder


def test_old_folders_of_the_user_that_are_called_after_the_program_stay(a_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "LNHG-main").mkdir()
    os.utime(tmp_path / "LNHG-main", (0, 0))
    models.add(zipped(a_folder, tmp_path / "tiny.zip"))
    assert (tmp_path / "LNHG-main").exists()


@pytest.mark.parametrize(
    "name", ["../evil.py", "tiny/../../evil.py", "/evil.py", "tiny/sub/evil.py", "evil.py", "tiny/C:evil", "tiny/a\\b"]
)
def test_an_archive_with_anything_beside_the_model_is_refused_and_writes_nothing(a_folder, user_folder, tmp_path, name):
    archive = zipped(a_folder, tmp_path / "tiny.zip", "tiny/", **{name: "import os"})
    with pytest.raises(InputError, match="outside or below the model's folder"):
        models.add(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.zip"]


def test_a_zipped_model_with_an_unlisted_file_is_refused(a_folder, tmp_path):
    archive = zipped(a_folder, tmp_path / "tiny.zip", "tiny/", **{"tiny/extra.bin": "x"})
    with pytest.raises(InputError, match=r"extra\.bin, which model\.json does not list"):
        models.add(archive)


def test_a_zipped_model_with_changed_weights_is_refused_and_nothing_is_kept(a_copy, user_folder, tmp_path):
    (a_copy / "detector.safetensors").write_bytes(b"changed")
    with pytest.raises(InputError, match=r"detector\.safetensors was changed: its SHA-256 is"):
        models.add(zipped(a_copy, tmp_path / "tiny.zip"))
    assert not user_folder.exists()


def test_archives_without_a_model_and_damaged_ones_are_refused_in_a_sentence(a_folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.writestr("a/1.dcm", "x")
    with pytest.raises(InputError, match=r"holds no files named model\.json, expected one"):
        models.add(tmp_path / "scan.zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("a/model.json", "b/model.json"):
            archive.writestr(name, "{}")
    with pytest.raises(InputError, match="holds 2 files named"):
        models.add(tmp_path / "two.zip")
    whole = zipped(a_folder, tmp_path / "tiny.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged or no zip archive, expected a zipped model"):
        models.add(tmp_path / "half.zip")


def test_an_archive_that_claims_more_than_any_model_is_refused_before_it_is_unpacked(a_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(model_archive, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match=r"unpacks to .* MB, expected at most 0 MB"):
        models.add(zipped(a_folder, tmp_path / "tiny.zip"))


def test_no_temporary_folder_stays_after_a_zipped_model(a_folder, a_copy, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    models.add(zipped(a_folder, tmp_path / "tiny.zip"))
    (a_copy / "detector.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"):
        models.add(zipped(a_copy, tmp_path / "broken.zip"))
    assert not list((tmp_path / "temporary").iterdir())


def test_the_default_model_comes_first_and_broken_ones_are_left_out(a_folder, user_folder):
    models.add(a_folder)
    for name in ("a-first", models.DEFAULT, "broken"):
        shutil.copytree(a_folder, models.BUNDLED / name)
        change(models.BUNDLED / name, "name", name if name != "broken" else "Not A Name")
    assert [model.name for model in models.available()] == [models.DEFAULT, "a-first", "tiny"]
    assert models.load().name == models.DEFAULT


def test_without_any_model_the_sentence_says_how_to_add_one():
    with pytest.raises(InputError, match="lnhg models add"):
        models.load()


def test_an_unknown_name_is_refused_with_the_known_ones(a_folder):
    models.add(a_folder)
    with pytest.raises(InputError, match=r"'other' is neither a known model \(tiny\) nor a folder"):
        models.load("other")


def test_listing_models_needs_no_torch():
    code = (
        "import sys; from LNHGLib.models import folder as models; models.available(); "
        "sys.exit(not {'torch', 'safetensors'}.isdisjoint(sys.modules))"
    )
    folder = Path(models.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0
