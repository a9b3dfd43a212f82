"""A cohort made of real CTs, ten of them broken, through the real core with a tiny model: the whole promise.

`LNHG_COHORT=50` makes as many good cases of them; the tests need 12.
"""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from batch_content import content, rows
from cohort_data import write_broken, write_dicom, write_file, zip_folder
from LNHGLib import __main__ as cli
from LNHGLib.image.reader import read_volume
from LNHGLib.image.volume import Grid, Volume, canonical, resample
from tiny_model import write_model

pytestmark = pytest.mark.slow


CORE = Path(cli.__file__).parents[1]
COARSE_MM = (8.0, 4.0, 4.0)
GOOD, BROKEN, KILLS = int(os.environ.get("LNHG_COHORT", "12")), 10, 3
GROWTH_MB = 30.0
LONG = 24
"""Cases until memory can be compared: OpenVINO loads more over the first ten."""
ALONE, FASTER = 4, 1.5


@pytest.fixture(scope="module")
def chests(data_dir):
    """Real CT in large voxels."""
    return [coarse(read_volume(path)) for path in sorted(data_dir.glob("ct/*/ct.nii.gz"))]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, chests):
    """A folder with the scans and a model."""
    folder = tmp_path_factory.mktemp("cohort")
    write_model(folder / "tiny", grid={"kind": "spacing", "spacing_mm": [8.0, 6.0, 6.0]}, threshold=0.6)
    for number in range(GOOD):
        write_scan(folder, number, changed(chests[number % len(chests)], number))
    write_broken(folder / "in" / "broken", chests[0])
    return folder


def coarse(volume: Volume) -> Volume:
    """The CT in large voxels, upright."""
    upright = canonical(volume)
    shape = np.array(upright.grid.shape) * upright.grid.spacing_mm // np.array(COARSE_MM)
    grid = Grid.aligned(tuple(shape.astype(int)), COARSE_MM, tuple(upright.grid.index_to_lps((0, 0, 0))))
    hu = resample(upright.array, upright.grid, grid).round().astype(np.int16)
    return replace(volume, array=hu, grid=grid)


def changed(chest: Volume, number: int) -> Volume:
    """Another patient, so to speak: flipped, cut at the skin, with more noise."""
    rng = np.random.default_rng(number)
    hu = chest.array + rng.normal(0, 6, chest.array.shape)
    cut = 2 * (number % 3)
    hu = hu[:, cut : hu.shape[1] - cut, cut : hu.shape[2] - cut]
    hu = hu[:, :, ::-1] if number % 2 else hu
    return replace(chest, array=hu.astype(np.int16), grid=replace(chest.grid, shape=hu.shape))


def write_scan(folder: Path, number: int, volume: Volume) -> None:
    place = folder / "in" / f"P{number:02}"
    if number % 4 == 0:
        write_dicom(place, volume, f"1.2.{number}")
    elif number % 4 == 1:
        zip_folder(write_dicom(folder / "x", volume, f"1.3.{number}"), place.with_suffix(".zip"))
    else:
        write_file(place.with_name(f"{place.name}{('.nii.gz', '.nrrd')[number % 4 - 2]}"), volume)


def start(cohort: Path, out: str, *options: str) -> subprocess.Popen:
    scans, model = str(cohort / "in"), str(cohort / "tiny")
    arguments = ["batch", scans, str(cohort / out), "--model", model, "--device", "cpu", "--jobs", "2", *options]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "LNHGLib", *arguments], cwd=CORE, env=dict(os.environ), **quiet)


@pytest.fixture(scope="module")
def whole(cohort):
    """The results of a run that nothing interrupted, and its seconds."""
    began = time.monotonic()
    assert start(cohort, "whole").wait() == 0
    return cohort / "whole", time.monotonic() - began


def without_seconds(out: Path) -> dict[str, object]:
    files = content(out)
    for name, text in files.items():
        if name.endswith("report.json"):
            files[name] = json.loads(text) | {"seconds": None}
    return files


def test_as_many_cases_come_out_as_went_in(whole):
    out, seconds = whole
    table = rows(out)
    assert len(table) == GOOD + BROKEN
    assert sorted(row["case"] for row in table if row["status"] == "done") == [f"P{i:02}" for i in range(GOOD)]
    assert all(row["reason"] for row in table if row["status"] == "failed")
    print(f"{len(table)} cases in {seconds:.0f} s")


def test_memory_stays_flat_over_the_cohort(cohort, chests, tmp_path):
    for number in range(max(GOOD, LONG)):
        write_scan(tmp_path, number, changed(chests[number % len(chests)], number))
    (tmp_path / "tiny").symlink_to(cohort / "tiny")
    assert start(tmp_path, "out").wait() == 0
    peaks = [float(row["peak_memory_mb"]) for row in rows(tmp_path / "out")]
    half, quarter = len(peaks) // 2, 3 * len(peaks) // 4  # in the first half workers still load what cases need
    early, late = max(peaks[half:quarter]), max(peaks[quarter:])  # the median would tell which worker was busier
    print(f"peak memory of a worker: {early:.0f} MB early, {late:.0f} MB late")
    print("MB by case:", *map(round, peaks))
    assert late - early < GROWTH_MB


def test_a_batch_of_two_jobs_is_faster_than_one_job_after_another(cohort, whole):
    scans = sorted((cohort / "in").glob("P*.n*"))[:ALONE]
    began = time.monotonic()
    for scan in scans:
        arguments = ["segment", str(scan), str(cohort / "alone" / scan.name), "--model", str(cohort / "tiny")]
        subprocess.run([sys.executable, "-m", "LNHGLib", *arguments, "--device", "cpu"], cwd=CORE, check=True)
    alone, together = (time.monotonic() - began) / ALONE, whole[1] / GOOD
    print(f"{alone:.1f} s a case one after another, {together:.1f} s with two jobs: {alone / together:.1f} times")
    assert alone / together >= FASTER


def test_three_kills_at_random_moments_cost_nothing(cohort, whole):
    out, seconds = whole
    moments, finished = random.Random(5), []
    for kill in range(KILLS):
        process = start(cohort, "killed", *(["--resume"] if kill else []))
        time.sleep(moments.uniform(0.1, 0.3) * seconds)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
        finished.append(len(list((cohort / "killed").glob("cases/*"))))
        time.sleep(1.0)  # its workers end with it
    assert finished[-1] < GOOD
    assert start(cohort, "killed", "--resume").wait() == 0
    assert without_seconds(cohort / "killed") == without_seconds(out)
    print(f"killed with {', '.join(map(str, finished))} of {GOOD} cases finished")
