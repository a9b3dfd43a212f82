"""What the trainings of both branches share: the loop over steps, validation, checkpoints, and how a run begins."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import torch
from LNHGLib.batch.lock import RunLock
from LNHGLib.errors import InputError
from LNHGLib.models import folder

from LNHGTrainingLib.config import TrainingConfig, to_table
from LNHGTrainingLib.data.background import load_sources
from LNHGTrainingLib.data.loading import BatchSource, load_steps
from LNHGTrainingLib.training import checkpoint, distributed
from LNHGTrainingLib.training.distributed import MicroBatches
from LNHGTrainingLib.training.log import RunLog
from LNHGTrainingLib.training.sigterm import BrokenOff, Stopped, StopSignal

T = TypeVar("T")


class Run:
    """What both trainings keep: networks and optimizers, counters, the best score, random state.

    Args:
        config: of the training; 0 micro-batches become one for each process.
        device: where to compute.
    """

    stateful: ClassVar[tuple[str, ...]] = ()
    """Attributes with a `state_dict`."""
    part: ClassVar[str] = ""
    """The network that is trained: its attribute, its table of the configuration, and its part of a model."""
    batches: ClassVar[Callable[..., BatchSource]]
    """Samples batches; made of training crops, backgrounds, hard negatives and the configuration."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.micro_batches = config.micro_batches or distributed.world_size()
        self.step = self.validated_step = 0
        self.best = -1.0
        self.epochs_without_improvement = 0
        torch.manual_seed(config.seed)

    def state(self) -> dict:
        """Return all that `restore` needs; of process 0, which samples all that depends on what was sampled before."""
        state = {name: getattr(self, name).state_dict() for name in self.stateful}
        state |= {"step": self.step, "validated_step": self.validated_step, "best": self.best}
        state["epochs_without_improvement"] = self.epochs_without_improvement
        state["config"] = to_table(replace(self.config, micro_batches=self.micro_batches))
        state["random"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def begin(self, out: Path, resume: bool) -> None:
        """Go on from `last.pt` in a folder, or else begin with the model that the configuration's `start` names.

        Args:
            out: the folder.
            resume: whether to go on, if there is such a checkpoint.

        Raises:
            InputError: there is no such model, or its network or its window is another.
        """
        if resume and (out / "last.pt").exists():
            self.restore(out / "last.pt")
        elif self.config.start:
            model, network = folder.load(self.config.start), to_table(getattr(self.config, self.part))
            if model.card["window_hu"] != self.config.window_hu:
                raise InputError(
                    f"{model.name} has the window {model.card['window_hu']} HU, expected {self.config.window_hu} as "
                    "the configuration; change one of them."
                )
            try:
                for name in (self.part, "ema"):
                    getattr(self, name).load_state_dict(model.weights(self.part))
            except RuntimeError as error:
                raise InputError(
                    f"The {self.part} of {model.name} is {model.card[self.part]}, expected {network} as in "
                    "the configuration; change its `start` or its network."
                ) from error

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; unless the configuration says otherwise, with as many micro-batches as it had.

        Args:
            path: the checkpoint.

        Raises:
            InputError: it is of another network.
        """
        state = checkpoint.load(path)
        try:
            for name in self.stateful:
                getattr(self, name).load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{path} is of another network, expected the {self.part} of the configuration; "
                "give the folder of its own training, or another one."
            ) from error
        self.step, self.best = state["step"], state["best"]
        self.epochs_without_improvement = state.get("epochs_without_improvement", 0)
        self.validated_step = state.get("validated_step", self.step)
        self.micro_batches = self.config.micro_batches or state["config"].get("micro_batches", 1)
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)

    def prepare(self, out: Path, stop: StopSignal) -> tuple[BatchSource, Sequence]:
        """Return what samples the batches, and what is validated on.

        The first process of each node prepares what the configuration's `data` names for the others.

        Args:
            out: folder of the run; resampled backgrounds are kept beside it.
            stop: tells whether SIGTERM came.

        Raises:
            InputError: nothing fits, or a patient is on both sides.
            Stopped: SIGTERM came to one of the processes.
        """
        sources = self.before_first_step(lambda: load_sources(self.config.data, out.parent / "cache"), stop)
        source = type(self).batches(sources.train, sources.backgrounds, sources.negatives, self.config)
        return source, sources.validation.spread(self.config.validate_crops)

    def before_first_step(self, work: Callable[[], T], stop: StopSignal) -> T:
        """Return what work gives that the first process of each node does before the others.

        Args:
            work: fills a cache that the others find.
            stop: tells whether SIGTERM came.

        Raises:
            Stopped: SIGTERM came to one of the processes.
        """
        with distributed.first_on_node():
            result = stop.unless_given(work)
        if distributed.any_rank(stop.given, self.device):
            raise Stopped("Stopped by SIGTERM before the first step; give the same command again.")
        return result

    def save_if_best(self, score: float, out: Path) -> None:
        """End an epoch: save the run as `best.pt` if no epoch before had a better score, and as `last.pt` anyway.

        Args:
            score: of the validation, more is better.
            out: folder of the run.
        """
        better = score > self.best
        self.validated_step = self.step
        self.epochs_without_improvement = 0 if better else self.epochs_without_improvement + 1
        if better:
            self.best = score
            self.save(out / "best.pt")
        self.save(out / "last.pt")

    def save(self, path: Path) -> None:
        """Write the run's state, by one process."""
        if distributed.rank() == 0:
            checkpoint.save(path, self.state())

    def epoch_ends(self) -> bool:
        """Return whether an epoch ends with this step and is not validated yet."""
        ends = self.step % self.config.epoch_steps == 0 or self.step == self.config.steps
        return ends and self.validated_step < self.step

    def finished(self) -> bool:
        """Return whether all steps are done and validated, or `patience` epochs brought nothing better (0: never)."""
        exhausted = 0 < self.config.patience <= self.epochs_without_improvement
        return not self.epoch_ends() and (self.step >= self.config.steps or exhausted)

    def train_step(self, batches: MicroBatches) -> dict[str, float]:
        """Update the networks by this process's micro-batches and return the losses and the rate."""
        raise NotImplementedError

    def validate(
        self, validation: Sequence, stop: StopSignal, plot: bool
    ) -> tuple[float, dict[str, float], dict[str, np.ndarray | None]]:
        """Score the averaged network.

        Args:
            validation: crops, or whatever the branch is validated on.
            stop: tells whether SIGTERM came.
            plot: whether pictures are wanted.

        Returns:
            The score, more is better; metrics by name; pictures (H, W, 3) uint8 by name, None where there is none.
        """
        raise NotImplementedError

    def fit(
        self,
        source: BatchSource,
        validation: Sequence,
        out: Path,
        stop: StopSignal,
        heartbeat: Callable[[], None],
    ) -> None:
        """Train and validate from the step that the run is at until it is finished.

        Args:
            source: samples the batches.
            validation: what is validated on.
            out: folder of the run.
            stop: tells whether SIGTERM came.
            heartbeat: called at every step.

        Raises:
            Stopped: SIGTERM came to one of the processes; `last.pt` is the state at that step.
        """
        config = self.config
        with RunLog(out, config.steps, self.step) as log:
            self._end_step(validation, log, out, stop)
            steps = range(self.step, config.steps)
            for batches in load_steps(source, steps, config.batch, self.micro_batches, config.workers):
                if self.finished():
                    return
                losses = self.train_step(batches)
                self.step += 1
                log.step(self.step, losses)
                heartbeat()
                self._end_step(validation, log, out, stop)

    def _end_step(self, validation: Sequence, log: RunLog, out: Path, stop: StopSignal) -> None:
        """Validate where an epoch ends, then stop if told to; a validation that is broken off is due again later."""
        if self.epoch_ends():
            with suppress(BrokenOff):
                score, metrics, pictures = self.validate(validation, stop, log.plots)
                log.epoch(self.step, metrics, pictures)
                self.save_if_best(score, out)
        if distributed.any_rank(stop.given, self.device) and not self.finished():
            self.save(out / "last.pt")
            raise Stopped(f"Stopped by SIGTERM after step {self.step}; go on with --resume.")


def train(kind: type[Run], config: TrainingConfig, out: Path, resume: bool, device: str) -> Path:
    """Train until `steps` or the end of `patience`; write `last.pt` and `best.pt` into `out` and return the latter.

    Args:
        kind: the branch's networks and their steps.
        config: of its training.
        out: folder of the run.
        resume: go on from `last.pt`, if there is one.
        device: "cpu", "auto", "cuda" or "cuda:N".

    Raises:
        InputError: data, checkpoint or device are missing, patients are on both sides of the split, another training
            writes into `out`, or an earlier one did and is not to be gone on with.
        Stopped: SIGTERM came; `last.pt` is the state at that step.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (
        StopSignal() as stop,
        distributed.processes(device) as here,
        distributed.without_subnormals(),
        _own(out, resume) as heartbeat,
    ):
        run = kind(config, here)
        run.begin(out, resume)
        source, validation = run.prepare(out, stop)
        run.fit(source, validation, out, stop, heartbeat)
    return out / "best.pt"


@contextmanager
def _own(out: Path, resume: bool) -> Iterator[Callable[[], None]]:
    """Keep a folder for this training, by its process 0; yields what shows that it is alive."""
    if distributed.rank() > 0:
        yield lambda: None
        return
    with RunLock(out / ".lock", out) as lock:
        if (out / "last.pt").exists() and not resume:
            raise InputError(
                f"{out} holds a training, which would be overwritten, expected a new folder; go on with --resume, or "
                "give another OUT."
            )
        yield lock.heartbeat
