"""Train branch 2: Faster R-CNN with GIoU losses in one plain loop.

    lnhg-train train detector --config detector.toml --data ../shared/data runs/detector [--resume]

Every `epoch_steps` batches the averaged detector is scored on whole validation crops: boxes are linked into candidates,
and the mean sensitivity at 1, 2, 4 and 8 false candidates per lung volume alone decides what `best.pt` is.
"""

import copy
import time
from pathlib import Path

import torch
from LNHGLib.detector import build_detector
from torch import Tensor

from LNHGTrainingLib import checkpoint
from LNHGTrainingLib.background import load_sources
from LNHGTrainingLib.data import Labelled
from LNHGTrainingLib.log import RunLog
from LNHGTrainingLib.losses import set_rate
from LNHGTrainingLib.slices import DetectorSlices
from LNHGTrainingLib.validate import crop_froc


class DetectorRun:
    """Network, optimiser and counters of one run.

    Args:
        config: the configuration (see Resources/detector.toml).
        device: where to compute.
    """

    def __init__(self, config: dict, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config["seed"])
        self.detector = build_detector(config["detector"]).to(device)
        self.average = copy.deepcopy(self.detector).eval().requires_grad_(False)
        decay = config["optimizer"]["weight_decay"]
        self.optimizer = torch.optim.Adam(self.detector.parameters(), weight_decay=decay)
        self.step = 0
        self.best = -1.0

    def state(self) -> dict:
        """All that `restore` needs."""
        parts = {name: getattr(self, name).state_dict() for name in ("detector", "average", "optimizer")}
        return parts | {"step": self.step, "best": self.best, "config": self.config, "random": torch.get_rng_state()}

    def restore(self, state: dict) -> None:
        """Go on from a checkpoint's state."""
        for name in ("detector", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.best = state["step"], state["best"]
        torch.set_rng_state(state["random"])

    def train_step(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, float]:
        """One update on the sum of the four losses, all with weight 1."""
        self.detector.train()
        images = [image.to(self.device) for image in images]
        targets = [{name: value.to(self.device) for name, value in target.items()} for target in targets]
        losses = self.detector(images, targets)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), 5.0, error_if_nonfinite=True)
        self.optimizer.step()
        checkpoint.follow(self.average, self.detector, self.config["optimizer"]["average"], self.step)
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """Train until `steps`, writing `last.pt` and `best.pt` into `out`; returns the path of the best.

    Raises:
        InputError: data missing, or patients on both sides of the split.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = DetectorRun(config, torch.device(device))
    if resume and (out / "last.pt").exists():
        run.restore(checkpoint.load(out / "last.pt"))
    sources = load_sources(config["data"], out.parent / "cache")
    step_mm = config["detector"]["slice_step_mm"]
    slices = DetectorSlices(
        sources.train, sources.backgrounds, config["sampling"], config["window_hu"], step_mm, config["seed"]
    )
    with RunLog(out, config["steps"], run.step) as log:
        _loop(run, slices, sources.validation, log, out)
    return out / "best.pt"


def _loop(run: DetectorRun, slices: DetectorSlices, validation: list[Labelled], log: RunLog, out: Path) -> None:
    config, epoch_steps = run.config, run.config["epoch_steps"]
    started = time.monotonic()
    while run.step < config["steps"]:
        rate = config["optimizer"]["rate"] * config["optimizer"]["gamma"] ** (run.step // epoch_steps)
        set_rate(run.optimizer, rate)
        losses = run.train_step(*slices.batch(run.step, config["batch"]))
        log.step(run.step, losses | {"rate": rate})
        if run.step % epoch_steps == 0 or run.step == config["steps"]:
            _end_epoch(run, validation, log, out, time.monotonic() - started)


def _end_epoch(run: DetectorRun, validation: list[Labelled], log: RunLog, out: Path, seconds: float) -> None:
    subset = validation[:: max(1, len(validation) // run.config["validate_crops"])]
    step_mm = run.config["detector"]["slice_step_mm"]
    sensitivity = crop_froc(run.average, subset, run.config["window_hu"], step_mm)
    score = sum(sensitivity.values()) / len(sensitivity)
    if score > run.best:
        run.best = score
        checkpoint.save(out / "best.pt", run.state())
    checkpoint.save(out / "last.pt", run.state())
    rates = {f"at_{rate}": value for rate, value in sensitivity.items()}
    log.epoch(run.step, {"score": score, "best": run.best, **rates, "seconds": seconds})
