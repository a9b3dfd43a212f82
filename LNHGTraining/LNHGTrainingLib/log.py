"""A run's log: progress bar, TensorBoard curves and pictures, a readable line an epoch and a CSV."""

import csv
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from LNHGTrainingLib import distributed
from LNHGTrainingLib.outputs import replacing


class RunLog:
    """Writes into `out`: TensorBoard events and `epochs.csv`; epoch lines also go to stderr. Only process 0 writes.

    Args:
        out: folder of the run; what it holds of steps after `done` was never kept and is dropped.
        total: steps of the run.
        done: steps that are done.
    """

    def __init__(self, out: Path, total: int, done: int) -> None:
        self.writes = distributed.rank() == 0
        self.total, self.started = total, time.monotonic()
        self.table = out / "epochs.csv"
        self.rows = [row for row in _read(self.table) if int(row["step"]) <= done]
        self.losses: defaultdict[str, list[float]] = defaultdict(list)
        self.bar = tqdm(total=total, initial=done, unit="step", mininterval=5, disable=not self.writes)
        if self.writes:
            self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=done + 1 if done else None)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        if self.writes:
            self.writer.close()

    def step(self, step: int, values: dict[str, float]) -> None:
        """Curves of one step."""
        self.bar.update()
        for name, value in values.items() if self.writes else ():
            self.losses[name].append(value)
            self.writer.add_scalar(f"train/{name}", value, step)

    def epoch(self, step: int, values: dict[str, float], pictures: dict[str, np.ndarray]) -> None:
        """Validation figures and pictures (H, W, 3) uint8 after an epoch."""
        if not self.writes:
            return
        values = values | {"seconds": time.monotonic() - self.started}
        for name, value in values.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        for name, picture in pictures.items():
            self.writer.add_image(f"examples/{name}", picture, step, dataformats="HWC")
        self.writer.flush()
        train = {name: float(np.mean(seen)) for name, seen in self.losses.items()}
        self.losses.clear()
        line = f"step {step}/{self.total}: {_words(values)}; training: {_words(train)}"
        self.bar.write(line, file=sys.stderr)
        self.rows.append({"step": step} | {name: round(value, 5) for name, value in values.items()})
        _write(self.table, self.rows)


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _read(table: Path) -> list[dict]:
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(table: Path, rows: list[dict]) -> None:
    """All rows anew and in one step, so that a killed run leaves no broken line."""
    with replacing(table) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
