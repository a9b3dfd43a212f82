"""A small cohort through the real core with a tiny model: the same as `lnhg segment`, also after a kill."""

import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cohort_data import write_broken, write_dicom, write_file, zip_folder
from dask_cluster import dask_cluster
from LNHGLib import __main__ as cli
from LNHGLib.results.files import FILES
from tiny_model import tiny_chest, write_model

pytestmark = pytest.mark.slow


CORE = Path(cli.__file__).parents[1]
TIMINGS = ("read_s", "compute_s", "write_s", "peak_memory_mb")
COARSE = (8.0, 5.0, 5.0)
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a cohort in many forms, and a model."""
    folder = tmp_path_factory.mktemp("batch")
    chest = tiny_chest(spacing_mm=COARSE)
    grid = {"kind": "spacing", "spacing_mm": [8.0, 6.0, 6.0]}
    write_model(folder / "tiny", grid=grid, threshold=0.6)
    write_dicom(folder / "in" / "P01", chest, "1.2.1")
    zip_folder(write_dicom(folder / "in" / "P02", chest, "1.2.2"), folder / "in" / "P02.zip")
    for name in ("P03.nii.gz", "P04.nrrd", "P05.mha"):
        write_file(folder / "in" / name, chest)
    write_broken(folder / "in" / "broken", chest)
    return folder


def command(place: Path, out: str, *options: str) -> list[str]:
    return ["batch", str(place / "in"), str(place / out), "--model", str(place / "tiny"), "--device", "cpu", *options]


@pytest.fixture(scope="module")
def whole(place):
    """The results of a run that nothing interrupted."""
    assert cli.main(command(place, "whole")) == 0
    return place / "whole"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_timings(out: Path) -> dict[str, object]:
    files: dict[str, object] = {}
    for path in sorted(out.glob("cases/*/*")):
        content: object = path.read_bytes()
        if path.name == "report.json":
            content = {**json.loads(path.read_text()), "seconds": None}
        files[path.relative_to(out).as_posix()] = content
    files["cases"] = [
        {key: value for key, value in row.items() if key not in TIMINGS} for row in rows(out / "cases.csv")
    ]
    files["cohort"] = (out / "cohort.csv").read_bytes()
    return files


def test_every_scan_is_a_row_and_every_good_one_a_result_folder(whole):
    table = rows(whole / "cases.csv")
    done = [row["case"] for row in table if row["status"] == "done"]
    assert done == ["P01", "P02", "P03", "P04", "P05"]
    assert len(table) == 15
    assert all(row["reason"] for row in table if row["status"] == "failed")
    for case in done:
        assert sorted(path.name for path in (whole / "cases" / case).iterdir()) == sorted(FILES)
    for column in TIMINGS[:3]:
        assert all(float(row[column]) >= 0 for row in table if row["status"] == "done")


def test_no_folder_above_the_input_stands_in_tables_and_overview(whole, place):
    for name in ("cases.csv", "cohort.csv", "overview.html"):
        assert str(place) not in (whole / name).read_text(encoding="utf-8")


def test_a_result_equals_that_of_segment(whole, place, tmp_path):
    arguments = [place / "in" / "P03.nii.gz", tmp_path / "single", "--model", place / "tiny", "--device", "cpu"]
    assert cli.main(["segment", *map(str, arguments)]) == 0
    for name in FILES:
        one, many = tmp_path / "single" / name, whole / "cases" / "P03" / name
        if name == "report.json":
            reports = [json.loads(path.read_text()) for path in (one, many)]
            assert list(reports[0].pop("seconds")) == list(reports[1].pop("seconds"))
            assert reports[0] == reports[1]
        else:
            assert one.read_bytes() == many.read_bytes(), name


def test_a_run_that_is_killed_and_resumed_gives_the_same_files(whole, place):
    arguments = [sys.executable, "-m", "LNHGLib", *command(place, "killed", "--jobs", "2")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(arguments, cwd=CORE, env=dict(os.environ), **quiet)
    until = time.monotonic() + LIMIT_S
    while not list((place / "killed").glob("cases/*")):
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in (place / "killed" / "cases").iterdir()}
    assert cli.main(command(place, "killed", "--resume")) == 0
    assert {name: (place / "killed" / "cases" / name).stat().st_mtime_ns for name in kept} == kept
    assert without_timings(place / "killed") == without_timings(whole)


def test_a_dask_cluster_gives_the_same_files(whole, place, tmp_path):
    pytest.importorskip("distributed", reason="needs the package distributed (the extra cluster)")
    with dask_cluster(tmp_path) as (address, workers):
        workers(1)
        assert cli.main(command(place, "dask", "--scheduler", str(address))) == 0
    assert without_timings(place / "dask") == without_timings(whole)


def test_the_bundled_model_does_one_case_after_another(tmp_path):
    chest = tiny_chest(spacing_mm=(5.0, 5.0, 5.0))
    middle = replace(chest, array=chest.array[8:18], grid=replace(chest.grid, shape=(10, *chest.grid.shape[1:])))
    for name in ("P01.nii.gz", "P02.nii.gz"):
        write_file(tmp_path / "in" / name, middle)
    assert cli.main(["batch", str(tmp_path / "in"), str(tmp_path / "out"), "--device", "cpu", "--jobs", "1"]) == 0
    first, second = rows(tmp_path / "out" / "cases.csv")
    assert (first["status"], second["status"]) == ("done", "done")
    assert int(first["nodules"]) > 0
    assert [first[name] for name in ("nodules", "best_score")] == [second[name] for name in ("nodules", "best_score")]
