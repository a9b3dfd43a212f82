"""Trains a branch with a configuration from a JSON file and keeps the losses of all steps.

torchrun --nproc-per-node 2 train_recorded.py BRANCH CONFIG.json OUT ...    (three arguments a training)
"""

import json
import sys
from pathlib import Path

from LNHGTrainingLib.training import detector, distributed, log, segmenter

TRAIN = {"segmenter": segmenter.train, "detector": detector.train}


def train(branch: str, config: Path, out: Path) -> list[dict[str, float]]:
    """Return the losses of each step; process 0 also writes them to `losses.json` in `out`."""
    losses: list[dict[str, float]] = []
    plain = log.RunLog.step

    def step(self: log.RunLog, number: int, values: dict[str, float]) -> None:
        losses.append(values)
        if distributed.rank() == 0:
            (out / "losses.json").write_text(json.dumps(losses))
        plain(self, number, values)

    log.RunLog.step = step
    try:
        TRAIN[branch](json.loads(config.read_text()), out)
    finally:
        log.RunLog.step = plain
    return losses


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
