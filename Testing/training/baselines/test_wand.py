"""Labels by a click: too large as document 001 makes them, right when mended."""

import json

import numpy as np
import pytest
from evaluation_data import ball, row, write_crops
from LNHGTrainingLib.__main__ import main
from LNHGTrainingLib.baselines import wand
from LNHGTrainingLib.evaluation.metrics import dice

CLICK = (32, 32)


def disc(radius, click=CLICK):
    """A noisy disc of soft tissue in lung, and where it is."""
    y, x = (np.indices((64, 64)).T - np.array(click)).T
    inside = y**2 + x**2 <= radius**2
    return np.where(inside, 0, -800) + np.random.default_rng(0).normal(0, 20, inside.shape), inside


@pytest.mark.parametrize("radius", [3, 5, 8, 12])
def test_the_closed_contour_is_the_disc_and_the_document_s_is_two_to_three_times_as_large(radius):
    """Register T3, with the radii that it names."""
    hu, inside = disc(radius)
    assert dice(wand.trace_closed(hu, CLICK, 2 * radius), inside) > 0.97
    original = wand.trace_as_document(hu, CLICK, 2 * radius)
    assert 1.7 < original.sum() / inside.sum() < 3.3
    assert dice(original, inside) < 0.72


def test_the_contour_is_closed_and_changes_by_a_step_at_the_most():
    """Register T4: a wall on one side of the nodule's first angle would leave the ends of an open contour apart."""
    hu, inside = disc(6)
    hu[:, 41:] = 40
    found = wand.trace_closed(hu, CLICK, 12)
    assert dice(found, inside) > 0.9
    below, above = found[33, 32:], found[31, 32:]  # on both sides of the first angle
    assert abs(int(below.sum()) - int(above.sum())) <= 1


def test_a_click_beside_the_middle_gives_the_same_disc():
    hu, inside = disc(6, (33, 31))
    assert dice(wand.trace_closed(hu, CLICK, 12), inside) > 0.95


def test_the_closed_contour_is_the_best_of_all_closed_ones():
    """Compared with every closed contour of a small image, counted out one by one."""
    rng = np.random.default_rng(3)
    costs = rng.random((4, 7))

    def best(path):
        if len(path) == costs.shape[1]:
            return sum(costs[r, c] for c, r in enumerate(path)) if abs(path[-1] - path[0]) <= 1 else np.inf
        near = range(4) if not path else range(max(path[-1] - 1, 0), min(path[-1] + 2, 4))
        return min(best([*path, r]) for r in near)

    way = wand.closed_path(costs)
    assert sum(costs[r, c] for c, r in enumerate(way)) == pytest.approx(best([]))
    assert max(abs(np.diff([*way, way[0]]))) <= 1


def test_a_nodule_is_labelled_in_the_slices_that_a_ball_of_its_diameter_reaches():
    """Register N6."""
    inside = ball((25, 25, 25), 6)
    hu = np.where(inside, 40.0, -850.0)
    label = wand.label_nodule(hu, (25, 25, 25), 12, wand.trace_closed)
    assert np.flatnonzero(label.any(axis=(1, 2))).tolist() == [*range(20, 31)]
    assert dice(label, inside) > 0.95
    assert dice(wand.ball(hu.shape, (25, 25, 25), 12), inside) == 1


def test_the_command_compares_all_labels_with_the_readers(tmp_path, capsys):
    crops = write_crops(tmp_path, [row(i) for i in range(4)], [15 * ball((25, 25, 25), 3 + i) for i in range(4)])
    options = ["--crops", str(crops.crops), "--table", str(crops.table)]
    assert main(["wand", *options, str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "wand.json").read_text())
    lines = {line["label"]: line for line in result["lines"] if line["size"] == "all"}
    assert lines["wand, closed contour"]["dice"]["value"] > 0.9
    assert lines["wand, closed contour"]["nodules"] == 4
    assert lines["wand of document 001"]["area"]["value"] > 1.2
    assert lines["ball of the diameter"]["volume"]["value"] == pytest.approx(1)
    assert "| the readers themselves |" in said
    assert len((tmp_path / "out" / "wand.csv").read_text().splitlines()) == 1 + 4 * 3
    assert main(["wand", *options, str(tmp_path / "out")]) == 2  # nothing is replaced unasked


def test_crops_without_a_diameter_are_refused(tmp_path, capsys):
    without = [row(0, luna_diameter_exact_mm="")]
    crops = write_crops(tmp_path, without, [15 * ball((25, 25, 25), 4)])
    assert main(["wand", "--crops", str(crops.crops), "--table", str(crops.table), str(tmp_path / "out")]) == 2
    assert "reference and a diameter" in capsys.readouterr().err
