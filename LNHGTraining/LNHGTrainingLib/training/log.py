"""A run's log: progress bar, a readable line for each epoch, a CSV, and TensorBoard if it is there."""

import importlib.util
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType

import numpy as np
from LNHGLib.files.atomic import atomic_file
from LNHGLib.files.text import read_csv, write_csv
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
        rows = read_csv(self.table) if self.table.exists() else []
        self.rows = [row for row in rows if int(row["step"]) <= done]
        self.losses: defaultdict[str, list[float]] = defaultdict(list)
        self.bar = tqdm(total=total, initial=done, unit="step", mininterval=5, disable=not self.writes)
        self.plots = self.writes and importlib.util.find_spec("tensorboard") is not None
        if self.plots:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=done + 1 if done else None)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        if self.plots:
            self.writer.close()

    def step(self, step: int, values: dict[str, float]) -> None:
        """Plot the curves of one step.

        Args:
            step: number of the step.
            values: losses and rate by name.
        """
        self.bar.update()
        for name, value in values.items() if self.writes else ():
            self.losses[name].append(value)
            if self.plots:
                self.writer.add_scalar(f"train/{name}", value, step)

    def epoch(self, step: int, values: dict[str, float], pictures: dict[str, np.ndarray | None]) -> None:
        """Write the metrics of an epoch, and plot them.

        Args:
            step: number of the step.
            values: metrics by name.
            pictures: (H, W, 3) uint8 by name, None where there is none.
        """
        if not self.writes:
            return
        values = values | {"seconds": time.monotonic() - self.started}
        if self.plots:
            for name, value in values.items():
                self.writer.add_scalar(f"validation/{name}", value, step)
            for name, picture in pictures.items():
                if picture is not None:
                    self.writer.add_image(f"examples/{name}", picture, step, dataformats="HWC")
            self.writer.flush()
        train = {name: float(np.mean(seen)) for name, seen in self.losses.items()}
        self.losses.clear()
        line = f"step {step}/{self.total}: {_words(values)}; training: {_words(train)}"
        self.bar.write(line, file=sys.stderr)
        self.rows.append({"step": step} | {name: round(value, 5) for name, value in values.items()})
        with atomic_file(self.table) as part:  # so that a killed run leaves no broken line
            write_csv(part, self.rows, list(dict.fromkeys(name for row in self.rows for name in row)))


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
