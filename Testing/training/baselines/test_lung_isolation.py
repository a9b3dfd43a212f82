"""Lungs as document 001 isolates them, slice by slice."""

import numpy as np
import pytest
from LNHGLib.files.text import read_json
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.baselines.lung_isolation import isolate_lungs


def a_slice(size=512):
    """A body with two lungs, a nodule inside the left one and another one at its wall; both lungs."""
    y, x = (np.indices((size, size)) - size / 2) * 512 / size
    hu = np.where((y / 170) ** 2 + (x / 220) ** 2 < 1, 40.0, -1000.0)
    lungs = ((y / 120) ** 2 + ((abs(x) - 105) / 80) ** 2) < 1
    hu[lungs] = -850
    hu[y**2 + (x - 105) ** 2 < 10**2] = 40
    hu[y**2 + (x - 180) ** 2 < 16**2] = 40
    return hu + np.random.default_rng(0).normal(0, 5, hu.shape), lungs


def test_both_lungs_are_found_and_the_air_around_the_body_is_not():
    hu, lungs = a_slice()
    found = isolate_lungs(hu[None])[0]
    assert found[lungs].mean() > 0.97
    assert found[~lungs].mean() < 0.2  # dilated, and nothing of what is around the body
    assert not found[:8].any()
    assert not found[:, :8].any()


def test_a_nodule_at_the_wall_is_partly_lost():
    """Register T7: what is inside is closed by dilating, what lies at the wall is not."""
    hu, _ = a_slice()
    found = isolate_lungs(hu[None])[0]
    y, x = np.indices(hu.shape) - 256
    assert found[y**2 + (x - 105) ** 2 < 10**2].all()
    assert not found[y**2 + (x - 180) ** 2 < 16**2].all()


def test_a_slice_of_one_value_has_no_lungs():
    """Register T6: the original divides by its standard deviation of 0."""
    assert not isolate_lungs(np.full((2, 64, 64), -1000.0)).any()


@pytest.mark.slow
def test_the_command_shows_both_masks_of_real_scans(data_dir, tmp_path, capsys):
    out = tmp_path / "lungs.png"
    cts = [str(data_dir / "ct" / name) for name in ("lidc-idri-0001/ct.nii.gz", "lidc-idri-0063/dicom")]
    assert main(["lungs", *cts, str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in said[2:]] == ["| lidc-idri-0001/ct.nii.gz", "| lidc-idri-0063/dicom"]
    for line, one in zip(said[2:], read_json(out.with_suffix(".json"))["scans"], strict=True):
        assert line.endswith(f"{one['dice']:.3f} |")
        assert one["dice"] > 0.8
        assert 2 < one["liters"]["here"] < 8
    assert out.read_bytes()[1:4] == b"PNG"
