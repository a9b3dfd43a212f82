"""What a reader did to a finding is told by its history, as far as it still holds."""

import pytest
from LNHGLib.measurement.reader_edits import changes
from LNHGLib.report.case import ReportNodule


def history(*actions: str) -> tuple[dict, ...]:
    return tuple({"action": action, "by": "user", "time": "2026-01-01T00:00:00+00:00"} for action in actions)


@pytest.mark.parametrize(
    ("actions", "left"),
    [
        ((), []),
        (("found", "confirmed"), []),
        (("found", "edited", "split", "edited"), ["edited", "split"]),
        (("found", "edited", "restored"), []),
        (("found", "merged", "restored", "edited"), ["edited"]),
    ],
)
def test_what_was_taken_back_counts_no_more_and_what_came_after_does(actions, left):
    assert changes(history(*actions)) == left


def test_an_outline_that_is_edited_after_it_was_restored_is_not_called_automatic():
    nodule = ReportNodule(
        1, 0.9, "fused", None, 0.9, 0.9, None, None, history=history("found", "edited", "restored", "edited")
    )
    assert nodule.algorithm_type == "SEMIAUTOMATIC"
    assert nodule.origin == "both branches, edited by the reader"
