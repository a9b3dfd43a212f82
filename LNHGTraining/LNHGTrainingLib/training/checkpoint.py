"""Complete checkpoints: everything a run needs to go on as if it had never stopped; and how a run begins."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import torch
from LNHGLib.errors import InputError
from LNHGLib.files.atomic import atomic_file
from LNHGLib.models import folder
from torch import nn

from LNHGTrainingLib.data.background import Sources, load_sources
from LNHGTrainingLib.training import distributed
from LNHGTrainingLib.training.sigterm import BrokenOff, Stopped, StopSignal


class Run:
    """What both trainings keep: networks and optimisers, counters, the best score, random state.

    Args:
        config: the configuration; `parts` 0 becomes one a process.
        device: where to compute.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    """Attributes with a `state_dict`."""
    part: ClassVar[str] = ""
    """The network that is trained: its attribute, and its part of a model."""

    def __init__(self, config: dict, device: torch.device) -> None:
        self.asked_parts = config.get("parts")
        self.config, self.device = config | {"parts": self.asked_parts or distributed.world()}, device
        self.step = self.judged = 0
        self.best = -1.0
        self.stale = 0
        torch.manual_seed(config["seed"])

    def state(self) -> dict:
        """All that `restore` needs; of process 0, which draws all that depends on what was drawn before."""
        state = {name: getattr(self, name).state_dict() for name in self.kept}
        state |= {"step": self.step, "judged": self.judged, "best": self.best, "stale": self.stale}
        state["config"] = self.config
        state["random"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def begin(self, out: Path, resume: bool) -> None:
        """Go on from `last.pt` in `out` if asked to and there is one, else begin with the model that `start` names.

        Raises:
            InputError: there is no such model, or its network or its window is another.
        """
        if resume and (out / "last.pt").exists():
            self.restore(out / "last.pt")
        elif self.config.get("start"):
            self._take(folder.load(self.config["start"]))

    def _take(self, model: folder.Model) -> None:
        if model.card["window_hu"] != self.config["window_hu"]:
            raise InputError(
                f"{model.name} has the window {model.card['window_hu']} HU, expected {self.config['window_hu']} as "
                "the configuration; change one of them."
            )
        try:
            for name in (self.part, "average"):
                getattr(self, name).load_state_dict(model.weights(self.part))
        except RuntimeError as error:
            raise InputError(
                f"The {self.part} of {model.name} is {model.card[self.part]}, expected {self.config[self.part]} as in "
                "the configuration; change its `start` or its network."
            ) from error

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; unless the configuration says otherwise, with as many parts as it had."""
        state = load(path)
        for name in self.kept:
            getattr(self, name).load_state_dict(state[name])
        self.step, self.best, self.stale = state["step"], state["best"], state.get("stale", 0)
        self.judged = state.get("judged", self.step)
        self.config["parts"] = self.asked_parts or state["config"].get("parts", 1)
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)

    def load(self, out: Path, stop: StopSignal) -> Sources:
        """What the configuration's `data` names; the first process of each node prepares it for the others.

        Raises:
            InputError: nothing fits, or a patient is on both sides.
            Stopped: SIGTERM came to one of the processes.
        """
        with distributed.first_on_node():
            sources = stop.unless_given(lambda: load_sources(self.config["data"], out.parent / "cache"))
        if distributed.any_rank(stop.given, self.device):
            raise Stopped("Stopped by SIGTERM before the first step; give the same command again.")
        return sources

    def judge(self, score: float, out: Path) -> None:
        """End an epoch: keep the run as `last.pt`, and as `best.pt` if no epoch before had a better score."""
        better = score > self.best
        self.judged = self.step
        self.best, self.stale = (score, 0) if better else (self.best, self.stale + 1)
        if better:
            self.save(out / "best.pt")
        self.save(out / "last.pt")

    def save(self, path: Path) -> None:
        """Write the run's state, by one process."""
        if distributed.rank() == 0:
            save(path, self.state())

    def due(self) -> bool:
        """Whether an epoch ends with this step and is not judged yet."""
        ends = self.step % self.config["epoch_steps"] == 0 or self.step == self.config["steps"]
        return ends and self.judged < self.step

    def finished(self) -> bool:
        """Whether all steps are done and judged, or the last `patience` epochs brought nothing better (0: never)."""
        patience = self.config.get("patience", 0)
        return not self.due() and (self.step >= self.config["steps"] or 0 < patience <= self.stale)

    def settle(self, end_epoch: Callable[[], None], out: Path, stop: StopSignal) -> None:
        """End the epoch where one is due, then stop if told to; an epoch's end that is broken off is due again later.

        Raises:
            Stopped: SIGTERM came to one of the processes; `last.pt` is the state at this step.
        """
        if self.due():
            with suppress(BrokenOff):
                end_epoch()
        if distributed.any_rank(stop.given, self.device) and not self.finished():
            self.save(out / "last.pt")
            raise Stopped(f"Stopped by SIGTERM after step {self.step}; go on with --resume.")


def save(path: Path, state: dict) -> None:
    """Write `state` (tensors and plain values) in one step."""
    with atomic_file(path) as part:
        torch.save(state, part)


def load(path: Path) -> dict:
    """Read a checkpoint without executing anything it holds.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a checkpoint there: train first, or start without --resume.")
    return torch.load(path, map_location="cpu", weights_only=True)


def require_segmenter(state: dict, path: Path) -> None:
    """Refuse a loaded checkpoint that holds no generator.

    Raises:
        InputError: so it is.
    """
    if "generator" not in state["config"] or "average" not in state:
        raise InputError(f"{path} holds no generator, expected a checkpoint of the segmenter; give another.")


def follow(average: nn.Module, network: nn.Module, keep: float, step: int) -> None:
    """Move the averaged weights and statistics towards the trained ones; faster in the first steps."""
    keep = min(keep, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if slow.dtype.is_floating_point:
                slow.lerp_(fast, 1 - keep)
            else:
                slow.copy_(fast)
