"""How long runs took: kept whole, by model, program and device, and what they say of the next one."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from LNHGLib import packages
from LNHGLib.__main__ import main
from LNHGLib.errors import Cancelled
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import write_image
from LNHGLib.phantom.chest import make_phantom
from LNHGLib.results import run_times
from LNHGLib.results.run_times import Run, expected_s, keep
from LNHGLib.segmentation.preprocessing import find_chest
from tiny_model import tiny_chest, write_model

CORE = Path(packages.__file__).parents[1]


@pytest.fixture(autouse=True)
def a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LNHG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_before_the_first_run_a_cpu_has_an_estimate_and_a_gpu_none():
    assert expected_s("m", "openvino", "cpu", 5.0) > run_times.START_S
    assert expected_s("m", "torch", "cpu", 5.0) > expected_s("m", "openvino", "cpu", 5.0)
    assert expected_s("m", "torch", "Large GPU", 5.0) is None


def test_the_median_of_the_last_runs_counts_by_model_program_and_device():
    for seconds in (*[9000.0] * 9, *[30.0, 40.0, 50.0, 60.0, 900.0] * 2):
        keep("m", "openvino", "cpu", Run(5.0, 4.0, seconds))
    assert expected_s("m", "openvino", "cpu", 5.0) == pytest.approx(54.0)
    assert expected_s("m", "openvino", "cpu", 10.0) == pytest.approx(104.0)
    for other in (("n", "openvino", "cpu"), ("m", "torch", "cpu")):
        assert expected_s(*other, 5.0) not in (pytest.approx(54.0), None)
    assert expected_s("m", "torch", "Large GPU", 5.0) is None


@pytest.mark.parametrize(
    "content", ["{broken", "[1, 2]", '{"m by openvino on cpu": [[0, 1, 2]]}', '{"a": [["x"]]}', "\0"]
)
def test_a_damaged_file_is_as_none_and_is_written_anew(content, a_cache):
    before = expected_s("m", "openvino", "cpu", 5.0)
    a_cache.mkdir()
    run_times.path().write_text(content)
    assert expected_s("m", "openvino", "cpu", 5.0) == before
    keep("m", "openvino", "cpu", Run(5.0, 4.0, 50.0))
    assert expected_s("m", "openvino", "cpu", 5.0) == pytest.approx(54.0)


def test_many_that_write_at_once_leave_one_whole_file(a_cache):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: keep(f"m{number}", "openvino", "cpu", Run(5.0, 4.0, 50.0)), range(40)))
    assert [path.name for path in a_cache.iterdir()] == ["run_times.json"]
    assert json.loads(run_times.path().read_text())


def test_a_folder_that_cannot_be_written_costs_the_note_alone(a_cache):
    a_cache.write_text("a file where the folder should be")
    keep("m", "openvino", "cpu", Run(5.0, 4.0, 50.0))


def chests():
    yield make_phantom().volume
    yield tiny_chest()


def test_the_air_in_the_body_is_about_that_of_the_lungs():
    for volume in chests():
        region = find_chest(volume)[0].sum() * np.prod(volume.grid.spacing_mm) / 1e6
        assert run_times.lung_liters(volume.array, volume.grid.spacing_mm) == pytest.approx(region, rel=0.25)


@pytest.mark.slow
def test_the_air_in_the_body_of_real_scans(data_dir):
    for case in ("lidc-idri-0001", "lidc-idri-0003"):
        volume = read_volume(data_dir / "ct" / case / "ct.nii.gz")
        region = find_chest(volume)[0].sum() * np.prod(volume.grid.spacing_mm) / 1e6
        assert run_times.lung_liters(volume.array, volume.grid.spacing_mm) == pytest.approx(region, rel=0.25)


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 5, 7)])
def test_what_is_no_chest_has_the_least_volume(shape):
    assert run_times.lung_liters(np.zeros(shape, np.int16), (1.0, 1.0, 1.0)) == run_times.MIN_LITERS


def test_what_is_looked_up_needs_no_large_package():
    """Slicer looks it up in its own process."""
    large = "{'scipy', 'SimpleITK', 'matplotlib', 'torch'}"
    code = f"import sys; import LNHGLib.results.run_times; print(*{large} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CORE, capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_each_run_of_the_command_is_noted_and_no_click(tmp_path):
    model, chest = write_model(tmp_path / "tiny").folder, tiny_chest()
    write_image(chest.array, chest.grid, tmp_path / "ct.nii.gz")
    arguments = [str(tmp_path / "ct.nii.gz"), str(tmp_path / "out"), "--model", str(model), "--device", "cpu"]
    place = ",".join(map(str, chest.grid.index_to_lps([26, 46, 30])))
    main(["segment", *arguments, "--overwrite", f"--at={place}"])
    assert not run_times.path().exists()
    assert main(["segment", *arguments, "--overwrite"]) == 0
    (key, rows), *more = json.loads(run_times.path().read_text()).items()
    assert (key, more) == ("tiny by openvino on cpu", [])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    [(liters, start_s, stages_s)] = rows
    assert stages_s == pytest.approx(sum(report["seconds"].values()), abs=0.1)
    assert start_s >= 0
    assert expected_s("tiny", "openvino", "cpu", liters) == pytest.approx(start_s + stages_s)


def test_a_cancelled_run_is_not_noted(tmp_path, monkeypatch):
    from LNHGLib.segmentation import pipeline

    def stop(*_arguments, **_options):
        raise Cancelled("cancelled by the user.")

    monkeypatch.setattr(pipeline, "segment", stop)
    model, chest = write_model(tmp_path / "tiny").folder, tiny_chest()
    write_image(chest.array, chest.grid, tmp_path / "ct.nii.gz")
    assert main(["segment", str(tmp_path / "ct.nii.gz"), str(tmp_path / "out"), "--model", str(model)]) == 1
    assert not run_times.path().exists()
