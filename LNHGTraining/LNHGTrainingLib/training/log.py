"""A run's log: progress bar, a readable line an epoch and a CSV; TensorBoard curves and pictures where it is there."""

import csv
import importlib.util
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType

import numpy as np
from LNHGLib.files.atomic import atomic_file
from tqdm import tqdm

from LNHGTrainingLib.training import distributed


class RunLog:
    """Writes into `out`: `epochs.csv` and TensorBoard events; epoch lines also go to stderr. Only process 0 writes.

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
        self.draws = self.writes and importlib.util.find_spec("tensorboard") is not None
        if self.draws:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=done + 1 if done else None)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        if self.draws:
            self.writer.close()

    def step(self, step: int, values: dict[str, float]) -> None:
        """Curves of one step."""
        self.bar.update()
        for name, value in values.items() if self.writes else ():
            self.losses[name].append(value)
            if self.draws:
                self.writer.add_scalar(f"train/{name}", value, step)

    def epoch(self, step: int, values: dict[str, float], pictures: dict[str, np.ndarray | None]) -> None:
        """Validation figures and pictures (H, W, 3) uint8, None where there is none, after an epoch."""
        if not self.writes:
            return
        values = values | {"seconds": time.monotonic() - self.started}
        if self.draws:
            self._draw(step, values, pictures)
        train = {name: float(np.mean(seen)) for name, seen in self.losses.items()}
        self.losses.clear()
        line = f"step {step}/{self.total}: {_words(values)}; training: {_words(train)}"
        self.bar.write(line, file=sys.stderr)
        self.rows.append({"step": step} | {name: round(value, 5) for name, value in values.items()})
        _write(self.table, self.rows)

    def _draw(self, step: int, values: dict[str, float], pictures: dict[str, np.ndarray | None]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        for name, picture in pictures.items():
            if picture is not None:
                self.writer.add_image(f"examples/{name}", picture, step, dataformats="HWC")
        self.writer.flush()


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _read(table: Path) -> list[dict]:
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(table: Path, rows: list[dict]) -> None:
    """All rows anew and in one step, so that a killed run leaves no broken line."""
    with atomic_file(table) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
