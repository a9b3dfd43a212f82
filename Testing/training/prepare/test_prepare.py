"""From trees as the archives lay them out to cubes, table and report."""

import csv
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
import scan_trees
from LNHGLib.errors import InputError
from LNHGLib.image.volume import Grid, resample, write_image
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.data import crops
from LNHGTrainingLib.prepare.ct_mask_pairs import find as find_pairs
from LNHGTrainingLib.prepare.ct_mask_pairs import merge_readers
from LNHGTrainingLib.prepare.luna16 import ChallengeLists
from LNHGTrainingLib.prepare.run import SETTINGS, prepare
from LNHGTrainingLib.prepare.sources import PrepareOptions
from scan_trees import GRID, four_readers, nodule_mask

CENTER = (12, 30, 32)


def read_csv(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def table(out, kind=None):
    return [row for row in read_csv(out / "manifest.csv") if kind in (None, row["kind"])]


def report(out):
    return {row["subject"]: row for row in read_csv(out / "report.csv")}


def cube(out, row):
    with h5py.File(out / "volumes.h5") as file:
        return {name: part[()] for name, part in file["volumes"][row["key"]].items()}


def on_tissue(parts):
    """The mask lies where the bright ball is: its rim is mixed with lung, nothing in it is lung alone."""
    values = parts["image"][parts["mask"] > 0]
    return np.median(values) > -100 and values.min() > -750


@pytest.fixture(scope="module")
def lidc(tmp_path_factory):
    """A patient with two scans, one with many marks, and scans that cannot be used."""
    tree = tmp_path_factory.mktemp("lidc")
    readers = four_readers(CENTER)
    readers[0].nodules.append(((6, 46, 20), 4.0, {"texture": 1}))
    readers[1].small, readers[2].non_nodules = [(12, 45, 32)], [(3, 10, 50)]
    scan_trees.write_lidc_scan(tree, "P1", "1.2.1", readers)
    scan_trees.write_lidc_scan(tree, "P1", "1.2.2", four_readers((9, 25, 25)))
    hollow = four_readers(CENTER)
    for marked in hollow:
        marked.holes = [(CENTER, 2)]
    scan_trees.write_lidc_scan(tree, "P2", "1.2.3", hollow)
    scan_trees.write_dicom(tree / "P3" / "1.2.4", scan_trees.chest([]), "P3", "1.2.4")
    scan_trees.write_dicom(tree / "P3" / "1.2.5", scan_trees.chest([])[:1], "P3", "1.2.5", modality="DX")
    scan_trees.write_lidc_scan(tree, "P4", "1.2.6", four_readers())
    (tree / "P4" / "study" / "1.2.6" / "readings.xml").write_text("<LidcReadMessage>")
    scan_trees.write_lidc_scan(tree, "P5", "1.2.7", four_readers())
    next((tree / "P5" / "study" / "1.2.7").glob("*-12.dcm")).unlink()
    scan_trees.write_xml(tree / "lost.xml", "1.2.8", four_readers())
    return tree


@pytest.fixture(scope="module")
def lidc_out(lidc, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "lidc"
    assert prepare("lidc", lidc, out, PrepareOptions()) == {"prepared": 3, "skipped": 6, "cubes": 4}
    return out


def test_every_nodule_is_a_row_with_what_the_readers_said(lidc_out):
    rows = table(lidc_out, "nodule")
    assert [(row["patient_id"], row["series_uid"], row["readers"]) for row in rows] == [
        ("P1", "1.2.1", "4"), ("P1", "1.2.1", "1"), ("P1", "1.2.2", "4"), ("P2", "1.2.3", "4"),
    ]  # fmt: skip
    first = rows[0]
    assert (first["att_texture"], first["att_malignancy"], first["att_margin"]) == ("4.5", "3.0", "")
    assert (first["type"], first["reference"], first["usable"], first["licence"]) == (
        "solid",
        "outlines",
        "1",
        "CC BY 3.0",
    )
    assert float(first["diameter_mm"]) == pytest.approx(12, abs=1)
    assert (float(first["z_spacing"]), float(first["x_spacing"])) == (2.0, 0.8)
    center = [float(first[f"centre_{axis}"]) for axis in "xyz"]
    assert center == pytest.approx(GRID.index_to_lps(np.array(CENTER)), abs=0.01)


def test_readers_are_kept_apart_and_half_of_them_make_the_consensus(lidc_out):
    row = table(lidc_out, "nodule")[0]
    parts = cube(lidc_out, row)
    grid = Grid.aligned((50,) * 3, (1,) * 3, [float(row[f"origin_{axis}"]) for axis in "xyz"])
    for reader, radius in enumerate([6, 6, 6, 4.5]):
        expected = resample(nodule_mask(CENTER, radius).astype(np.uint8), GRID, grid, linear=False, fill=0)
        assert np.array_equal(parts["reader_masks"][0] >> reader & 1, expected)
    assert np.array_equal(parts["mask"][0], parts["reader_masks"][0] & 1)
    assert not parts["reader_masks"][0].max() >> 4


def test_slices_are_found_by_their_uid_and_holes_stay_empty(lidc_out, lidc):
    """The files' names are in no order; the hole of 5 x 5 pixels lies in one slice."""
    row = table(lidc_out, "nodule")[-1]
    parts = cube(lidc_out, row)
    assert on_tissue(parts)
    z = round(GRID.index_to_lps(np.array(CENTER))[2] - float(row["origin_z"]))
    assert not parts["mask"][0, z, 24:27, 24:27].any()
    assert parts["mask"][0, z + 2, 24:27, 24:27].all()


def test_the_layout_is_that_of_the_method_facts(lidc_out):
    """Section 10."""
    row = table(lidc_out, "nodule")[0]
    parts = cube(lidc_out, row)
    types = {name: (parts[name].dtype, parts[name].shape) for name in ("image", "target", "mask")}
    block = (1, 50, 50, 50)
    assert types == {"image": (np.float32, block), "target": (np.float32, block), "mask": (np.uint8, block)}
    window = np.clip((parts["image"] + 1000) / 1400, 0, 1)
    assert np.allclose(parts["target"], window * parts["mask"], atol=1e-6)
    with h5py.File(lidc_out / "volumes.h5") as file:
        attributes = dict(file["volumes"][row["key"]].attrs)
    assert (attributes["series_uid"], attributes["patient_id"], attributes["nodule_id"]) == (b"1.2.1", b"P1", b"000")
    assert attributes["z_indices"].tolist() == [9, 15]


def test_small_nodules_and_non_nodules_are_recorded_as_such(lidc_out):
    small, other = table(lidc_out, "small-nodule"), table(lidc_out, "non-nodule")
    assert [(row["reader"], row["usable"], row["row"]) for row in small + other] == [("1", "0", ""), ("2", "0", "")]
    place = [float(other[0][f"centre_{axis}"]) for axis in "xyz"]
    assert place == pytest.approx(GRID.index_to_lps(np.array([3, 10, 50])), abs=1e-3)


def test_other_lesions_in_a_cube_are_not_known(lidc_out):
    row = table(lidc_out, "nodule")[0]
    grid = Grid.aligned((50,) * 3, (1,) * 3, [float(row[f"origin_{axis}"]) for axis in "xyz"])
    other = cube(lidc_out, row)["other_mask"][0]
    for place, expected in (((12, 45, 32), 1), ((6, 46, 20), 1), ((3, 10, 50), 0), (CENTER, 0)):
        assert other[tuple(np.rint(grid.lps_to_index(GRID.index_to_lps(np.array(place)))).astype(int))] == expected


def test_bad_scans_are_skipped_with_their_reasons(lidc_out):
    reasons = {name: row["text"] for name, row in report(lidc_out).items() if row["status"] == "skipped"}
    assert set(reasons) == {"1.2.4", "1.2.5", "1.2.6", "1.2.7", "1.2.8", "P4/study/1.2.6/readings.xml"}
    assert "No XML" in reasons["1.2.4"]
    assert "DX" in reasons["1.2.5"]
    assert "cannot be read as XML" in reasons["P4/study/1.2.6/readings.xml"]
    assert "misses 1 slice" in reasons["1.2.7"]
    assert "DICOM files are not in the input" in reasons["1.2.8"]


def test_two_patients_under_one_uid_are_two_cases_and_readings_belong_to_one(tmp_path):
    scan_trees.write_lidc_scan(tmp_path / "in", "P1", "1.2.1", four_readers(CENTER))
    scan_trees.write_dicom(tmp_path / "in" / "P2", scan_trees.chest([], seed=5), "P2", "1.2.1")
    for path in (tmp_path / "in" / "P2").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID += ".9"
        dataset.save_as(path)
    assert prepare("lidc", tmp_path / "in", tmp_path / "out", PrepareOptions())["prepared"] == 1
    statuses = {row["patient_id"] for row in table(tmp_path / "out", "nodule")}
    assert statuses == {"P1"}
    (reason,) = (row["text"] for row in report(tmp_path / "out").values() if row["status"] == "skipped")
    assert "not among the" in reason


def tilt(folder):
    """Scan again under a tilted gantry: each slice, with its outlines, begins a row further back than the one below."""
    rows_of = {}
    for path in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        rows = round((dataset.ImagePositionPatient[2] - scan_trees.ORIGIN_LPS_MM[2]) / scan_trees.SPACING_MM[0])
        dataset.PixelData = np.roll(dataset.pixel_array, -rows, axis=0).tobytes()
        dataset.ImagePositionPatient[1] += rows * dataset.PixelSpacing[0]
        rows_of[dataset.SOPInstanceUID] = rows
        dataset.save_as(path)
    (xml,) = folder.rglob("*.xml")
    rows = 0

    def moved(found):
        nonlocal rows
        if found[1] == "imageSOP_UID":
            rows = rows_of[found[2]]
            return found[0]
        return f"<{found[1]}>{int(found[2]) - rows}<"

    xml.write_text(re.sub(r"<([\w:]*(?:imageSOP_UID|yCoord))>([^<]*)<", moved, xml.read_text()))


def test_outlines_of_a_tilted_gantry_lie_on_the_straightened_scan(tmp_path):
    readers = four_readers(CENTER)
    readers[1].small, readers[2].non_nodules = [(12, 45, 32)], [(3, 30, 50)]
    for name in ("straight", "tilted"):
        scan_trees.write_lidc_scan(tmp_path / name, "P1", "1.2.1", readers)
    tilt(tmp_path / "tilted")
    outs = [tmp_path / "out-straight", tmp_path / "out-tilted"]
    for out in outs:
        assert prepare("lidc", tmp_path / out.name.removeprefix("out-"), out, PrepareOptions())["prepared"] == 1
    straight, tilted = map(table, outs)
    assert len(straight) == len(tilted) == 3
    for one, other in zip(straight, tilted, strict=True):
        for axis in "xyz":
            assert float(one[f"centre_{axis}"]) == pytest.approx(float(other[f"centre_{axis}"]), abs=1e-3)
    one, other = (cube(out, table(out, "nodule")[0]) for out in outs)
    assert np.array_equal(one["reader_masks"], other["reader_masks"])
    middle = (0, slice(15, 35), slice(18, 32), slice(15, 35))
    assert np.array_equal(one["image"][middle], other["image"][middle])


def test_a_second_run_changes_nothing(lidc, lidc_out):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (lidc_out / "scans").iterdir()}
    prepare("lidc", lidc, lidc_out, PrepareOptions())
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (lidc_out / "scans").iterdir()}


def test_other_settings_need_another_folder(lidc, lidc_out):
    with pytest.raises(InputError, match="prepared with source"):
        prepare("lidc", lidc, lidc_out, PrepareOptions(source="elsewhere"))


@pytest.mark.parametrize("text", ["{", "[1]", "null"])
def test_prepared_data_whose_notes_are_damaged_are_not_gone_on_with(lidc, tmp_path, text):
    (tmp_path / SETTINGS).write_text(text)
    with pytest.raises(InputError, match=r"is damaged or was changed .*; name another folder"):
        prepare("lidc", lidc, tmp_path, PrepareOptions())


def test_a_scan_whose_file_is_damaged_is_named(lidc, lidc_out, tmp_path):
    out = Path(shutil.copytree(lidc_out, tmp_path / "out"))
    broken = min((out / "scans").iterdir())
    for content in (b"", broken.read_bytes()[:500], b"no HDF5" * 99):
        broken.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"{broken.name} is damaged or was changed .*; remove it and prepare again"
        ):
            prepare("lidc", lidc, out, PrepareOptions())


def test_a_folder_with_something_else_is_left_alone(lidc, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        prepare("lidc", lidc, tmp_path, PrepareOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_mark_on_a_missing_image_skips_the_scan(tmp_path):
    scan_trees.write_lidc_scan(tmp_path / "in", "P1", "1.2.1", four_readers())
    xml = tmp_path / "in" / "P1" / "study" / "1.2.1" / "readings.xml"
    xml.write_text(xml.read_text().replace("1.2.1.13<", "1.2.1.99<"))
    with pytest.raises(InputError, match=r"report\.csv"):
        prepare("lidc", tmp_path / "in", tmp_path / "out", PrepareOptions())
    assert "1.2.1.99" in report(tmp_path / "out")["1.2.1"]["text"]


def luna_point(index):
    return tuple(GRID.index_to_lps(np.array(index)))


@pytest.fixture(scope="module")
def luna16(tmp_path_factory):
    folder = tmp_path_factory.mktemp("luna16") / "in"
    near, far = luna_point((12, 12, 12)), (900.0, 0.0, 0.0)
    candidates = [["1.3.1", *luna_point((12, 12, x)), 0] for x in range(10, 50, 4)]
    candidates += [["1.3.1", *luna_point(CENTER), 1], ["1.3.2", *far, 0]]
    scans = {"1.3.1": [(CENTER, 9.0), ((6, 46, 20), 5.0)], "1.3.2": [((9, 25, 25), 7.0)]}
    scan_trees.write_luna16(folder, scans, candidates, [["1.3.1", *near, -1]])
    (folder / "subset0" / "1.3.9.mhd").write_text("ObjectType = Image\n")
    scan_trees.write_xml(folder.parent / "xml" / "a.xml", "1.3.1", four_readers(CENTER, 4.5))
    return folder


def test_luna16_nodules_are_spheres_of_the_listed_diameter_and_say_so(luna16, tmp_path):
    prepare("luna16", luna16, tmp_path / "out", PrepareOptions(negatives=3))
    rows = table(tmp_path / "out", "nodule")
    assert {(row["reference"], row["n_readers_usable"], row["readers"]) for row in rows} == {("sphere", "1", "3")}
    assert [float(row["diameter_mm"]) for row in rows] == [9.0, 5.0, 7.0]
    assert [int(row["cons_voxels"]) for row in rows] == pytest.approx([np.pi / 6 * d**3 for d in (9, 5, 7)], rel=0.15)
    assert "sphere" in report(tmp_path / "out")["1.3.1"]["text"]
    assert report(tmp_path / "out")["1.3.9"]["status"] == "skipped"


def test_candidates_become_negatives(luna16, tmp_path):
    prepare("luna16", luna16, tmp_path / "out", PrepareOptions(negatives=3))
    rows = table(tmp_path / "out", "negative")
    assert [(row["series_uid"], row["usable"]) for row in rows] == [("1.3.1", "0")] * 3
    assert not any(cube(tmp_path / "out", row)["mask"].any() for row in rows)
    assert "1 candidate(s) outside" in report(tmp_path / "out")["1.3.2"]["text"]


def test_negatives_are_drawn_from_the_seed_and_are_no_nodules(luna16):
    lists = ChallengeLists(luna16)
    drawn = [lists.negatives("1.3.1", 4, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(lists.negatives("1.3.1", 99, 0)) == 10
    assert luna_point(CENTER) not in lists.negatives("1.3.1", 99, 0)


def test_luna16_takes_outlines_where_there_are_any(luna16, tmp_path):
    prepare("luna16", luna16, tmp_path / "out", PrepareOptions(xml=luna16.parent / "xml", negatives=0))
    rows = table(tmp_path / "out", "nodule")
    assert [(row["series_uid"], row["reference"], row["n_readers_usable"]) for row in rows] == [
        ("1.3.1", "outlines", "4"), ("1.3.1", "sphere", "1"), ("1.3.2", "sphere", "1"),
    ]  # fmt: skip
    assert on_tissue(cube(tmp_path / "out", rows[0]))


def test_luna16_patients_come_from_a_table_or_the_scan_is_left_out(luna16, tmp_path):
    (tmp_path / "patients.csv").write_text("series_uid,patient_id\n1.3.1,P7\n")
    prepare("luna16", luna16, tmp_path / "out", PrepareOptions(patients=tmp_path / "patients.csv"))
    assert {row["patient_id"] for row in table(tmp_path / "out")} == {"P7"}
    assert "patients.csv does not name" in report(tmp_path / "out")["1.3.2"]["text"]


def test_a_flipped_scan_gives_the_same_cube(tmp_path):
    """LUNA16 holds scans with a negative diagonal: geometry comes from the whole affine."""
    affine = GRID.affine.copy()
    affine[:3, 1:3] *= -1
    affine[:3, 3] = GRID.index_to_lps(np.array([0, GRID.shape[1] - 1, GRID.shape[2] - 1]))
    cubes, center = [], (12.1, 30.2, 32.3)  # no voxel of the cube lies halfway between two of the scan
    for name, flip in (("straight", False), ("flipped", True)):
        scan_trees.write_luna16(tmp_path / name, {"1.4.1": [(center, 9.0)]})
        if flip:
            hu = scan_trees.chest([(center, 4.5)])[:, ::-1, ::-1]
            write_image(hu, Grid(GRID.shape, affine), tmp_path / name / "subset0" / "1.4.1.mhd")
        prepare("luna16", tmp_path / name, tmp_path / f"{name}-out", PrepareOptions())
        cubes.append(cube(tmp_path / f"{name}-out", table(tmp_path / f"{name}-out")[0]))
    assert np.abs(cubes[0]["image"] - cubes[1]["image"]).max() <= 1
    assert np.array_equal(cubes[0]["mask"], cubes[1]["mask"])


@pytest.mark.parametrize("form", ["cases", "folders", "list"])
def test_pairs_are_found_in_every_form(tmp_path, form):
    place = tmp_path / "in"
    names = {
        "cases": ("a/ct.nii.gz", "a/mask_reader1.nrrd", "a/mask_reader2.nrrd"),
        "folders": ("images/a_0000.mha", "labels/a.nii.gz"),
        "list": ("x/scan.nrrd", "y/m1.nii.gz", "y/m2.nii.gz"),
    }[form]
    for number, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        mask = nodule_mask(CENTER, 6 - number) * 1 + nodule_mask((6, 46, 20), 4) * 2
        array = scan_trees.chest([(CENTER, 5), ((6, 46, 20), 4)]) if number == 0 else mask.astype(np.uint8)
        write_image(array, GRID, place / name)
    if form == "list":
        place = place / "list.csv"
        place.write_text("case,patient_id,ct,mask\nscan a,P1,x/scan.nrrd,y/m1.nii.gz;y/m2.nii.gz\n")
    prepare("pairs", place, tmp_path / "out", PrepareOptions(source="our clinic", licence="internal"))
    rows = table(tmp_path / "out")
    assert [int(row["n_readers_usable"]) for row in rows] == [len(names) - 1] * 2
    assert {(row["source"], row["licence"]) for row in rows} == {("our clinic", "internal")}
    assert rows[0]["patient_id"] == ("P1" if form == "list" else "a")


def test_a_ct_of_thin_slices_and_small_pixels_is_averaged(tmp_path):
    """Register L10: a voxel of 1 mm is the mean of eight of 0.5 mm, as on the grid of a model."""
    grid = Grid.aligned((120, 120, 120), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0))
    hu = np.random.default_rng(0).normal(-800, 100, grid.shape)
    ball = ((np.indices(grid.shape) - 60) ** 2).sum(0) < 12**2
    hu[ball] = 40
    hu[:, :24] += 840  # a wall, as of every chest
    write_image(hu.round().astype(np.int16), grid, tmp_path / "ct.nii.gz")
    write_image(ball.astype(np.uint8), grid, tmp_path / "m.nii.gz")
    (tmp_path / "list.csv").write_text("ct,mask\nct.nii.gz,m.nii.gz\n")
    prepare("pairs", tmp_path / "list.csv", tmp_path / "out", PrepareOptions())
    (row,) = table(tmp_path / "out")
    corner = cube(tmp_path / "out", row)["image"].squeeze()[2:12, -14:-4, 2:12]
    assert corner.std() < 100 / np.sqrt(8)  # interpolated on top of it


def test_parts_of_a_mask_of_one_value_are_nodules_and_another_grid_is_brought_over(tmp_path):
    write_image(scan_trees.chest([(CENTER, 5), ((6, 46, 20), 4)]), GRID, tmp_path / "ct.nii.gz")
    mask = (nodule_mask(CENTER, 5) | nodule_mask((6, 46, 20), 4)).astype(np.uint8)
    affine = GRID.affine.copy()
    affine[:3, 3] = GRID.index_to_lps(np.array([2, 0, 0]))
    write_image(mask[2:], Grid((22, 64, 64), affine), tmp_path / "m.nii.gz")
    (tmp_path / "list.csv").write_text("ct,mask\nct.nii.gz,m.nii.gz\n")
    prepare("pairs", tmp_path / "list.csv", tmp_path / "out", PrepareOptions())
    rows = table(tmp_path / "out")
    assert len(rows) == 2
    assert all(on_tissue(cube(tmp_path / "out", row)) for row in rows)
    assert "brought to the grid" in report(tmp_path / "out")["ct"]["text"]


def test_crops_keep_their_content_and_their_folds(data_dir, tmp_path):
    source = data_dir / "crops"
    rows = read_csv(source / "luna16_crops.csv")[:6]
    with h5py.File(source / "luna16_crops.h5") as file, h5py.File(tmp_path / "six.h5", "w") as small:
        for name in ("ct", "reader_masks", "other_mask", "valid_extent"):
            small[name] = file[name][:6]
    with (tmp_path / "six.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    prepare("crops", tmp_path, tmp_path / "out", PrepareOptions())
    folds = sorted({int(row["fold"]) for row in rows})
    before = crops.load_crops(tmp_path / "six.h5", tmp_path / "six.csv", folds)
    after = crops.load_crops(tmp_path / "out" / "volumes.h5", tmp_path / "out" / "manifest.csv", folds)
    assert len(before) == len(after) > 3
    for one, other in zip(before, after, strict=True):
        assert one.row["att_malignancy"] == other.row["att_malignancy"]
        for name in ("hu", "mask", "known"):
            assert np.array_equal(getattr(one, name), getattr(other, name))


def test_the_command_says_what_it_did(lidc, lidc_out, tmp_path, capsys):
    assert main(["prepare", "lidc", str(lidc), str(lidc_out)]) == 0
    assert "3 scan(s) prepared, 6 skipped, 4 cube(s)" in capsys.readouterr().out
    assert json.loads((lidc_out / "prepare.json").read_text())["layout"] == "lidc"
    assert main(["prepare", "luna16", str(lidc), str(tmp_path / "other")]) == 2
    assert "annotations.csv" in capsys.readouterr().err


@pytest.mark.parametrize("inside", [1, 2, 128, 255, 1000, 65535])
def test_a_mask_of_one_value_holds_as_many_nodules_as_parts(inside):
    mask = np.zeros((6, 20, 20), np.uint16)
    mask[2:4, 2:5, 2:5] = mask[2:4, 12:15, 12:15] = inside
    assert len(merge_readers([mask])) == 2


def test_a_label_map_keeps_its_nodules_and_one_reader_of_several_may_have_marked_one_alone():
    first = np.zeros((6, 20, 20), np.uint16)
    first[2:4, 2:5, 2:5], first[2:4, 5:8, 2:5], first[2:4, 12:15, 12:15] = 1, 2, 2
    assert len(merge_readers([first])) == 2
    second = np.where(first == 2, 2, 0).astype(np.uint16)
    nodules = merge_readers([first, second])
    assert [nodule.readers for nodule in nodules] == [1, 2]


@pytest.mark.parametrize(
    ("images", "masks", "names"),
    [
        (("case_0000", "case_0001"), ("case_0000", "case_0001"), {"case_0000", "case_0001"}),
        (("a_0000", "b_0000"), ("a", "b"), {"a", "b"}),
        (("a_0000_0000", "b_0000"), ("a_0000", "b_0000"), {"a_0000", "b_0000"}),
        (("\u738b", "\u674e"), ("\u738b", "\u674e"), {"\u738b", "\u674e"}),
    ],
)
def test_cases_have_their_masks_whatever_their_names_end_with(tmp_path, images, masks, names):
    for folder, stems in (("images", images), ("masks", masks)):
        (tmp_path / folder).mkdir()
        for stem in stems:
            (tmp_path / folder / f"{stem}.nii.gz").touch()
    found = find_pairs(tmp_path, PrepareOptions())
    assert {subject.name for subject in found.subjects} == names
    assert not found.left_out


@pytest.mark.parametrize("names", [("A", "a"), ("a b", "a_b"), ("\u00e9", "e\u0301")])
def test_cases_whose_names_a_file_system_may_take_for_the_same_get_files_of_their_own(tmp_path, names):
    rows = "".join(f"{name},{index}.nii,{index}-mask.nii\n" for index, name in enumerate(names))
    (tmp_path / "pairs.csv").write_text(f"case,ct,mask\n{rows}", encoding="utf-8")
    found = find_pairs(tmp_path / "pairs.csv", PrepareOptions())
    assert len({subject.name.casefold() for subject in found.subjects}) == 2


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_a_list_of_pairs_in_the_encoding_of_a_spreadsheet_is_read(tmp_path, encoding):
    (tmp_path / "pairs.csv").write_text("case;ct;mask\nM\u00fcller;a.nii.gz;b.nii.gz\n", encoding=encoding)
    (subject,) = find_pairs(tmp_path / "pairs.csv", PrepareOptions()).subjects
    assert subject.name == "M\u00fcller"
