"""A run's log: progress bar, TensorBoard curves, a readable line an epoch and a CSV."""

import csv
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


class RunLog:
    """Writes into `out`: TensorBoard events and `epochs.csv`; epoch lines also go to stderr."""

    def __init__(self, out: Path, total: int, done: int) -> None:
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=done or None)
        self.bar = tqdm(total=total, initial=done, unit="step", mininterval=5)
        self.table = out / "epochs.csv"

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        self.writer.close()

    def step(self, step: int, values: dict[str, float]) -> None:
        """Curves of one step."""
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        self.bar.update()

    def epoch(self, step: int, values: dict[str, float]) -> None:
        """Validation figures after an epoch."""
        for name, value in values.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        row = {"step": step} | {name: round(value, 5) for name, value in values.items()}
        self.bar.write(" ".join(f"{name}={value}" for name, value in row.items()))
        new = not self.table.exists()
        with self.table.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
