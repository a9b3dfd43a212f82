"""Train branch 2: Faster R-CNN with GIoU losses in one plain loop.

    lnhg-train train detector --config detector.toml --data ../shared/data runs/detector [--resume]

Every `epoch_steps` batches the averaged detector is scored on whole validation crops: boxes are linked into candidates,
and the mean sensitivity at 1, 2, 4 and 8 false candidates per lung volume alone decides what `best.pt` is and when
`patience` ends. `distributed` says how several processes share a step.
"""

import copy
from pathlib import Path

import torch
from LNHGLib.models.detector import build_detector
from torch import Tensor, nn

from LNHGTrainingLib.data.crops import CropDataset
from LNHGTrainingLib.data.detector_batches import DetectorSlices
from LNHGTrainingLib.data.loading import load_steps
from LNHGTrainingLib.training import checkpoint
from LNHGTrainingLib.training.distributed import Parts, mean_gradients, processes, without_subnormals
from LNHGTrainingLib.training.log import RunLog
from LNHGTrainingLib.training.losses import precision, set_rate
from LNHGTrainingLib.training.sigterm import StopSignal
from LNHGTrainingLib.training.tensorboard_images import detector_examples
from LNHGTrainingLib.training.validate import crop_froc

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


class DetectorRun(checkpoint.Run):
    """Network, optimiser and counters of one run.

    Args:
        config: the configuration (see Resources/detector.toml).
        device: where to compute.
    """

    part = "detector"
    kept = ("detector", "average", "optimizer")

    def __init__(self, config: dict, device: torch.device) -> None:
        super().__init__(config, device)
        self.detector = build_detector(config["detector"]).to(device)
        if device.type == "cuda":  # on CPUs torch crashes on channels-last convolutions with few channels
            self.detector.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.detector).eval().requires_grad_(False)
        for module in (self.detector.backbone, self.detector.roi_heads.box_head):
            _compute_in(precision(config, device), module)
        decay = config["optimizer"]["weight_decay"]
        self.optimizer = torch.optim.Adam(self.detector.parameters(), weight_decay=decay)

    def set_rate(self) -> float:
        """Give the optimiser the learning rate of this step."""
        schedule = self.config["optimizer"]
        rate = schedule["rate"] * schedule["gamma"] ** (self.step // self.config["epoch_steps"])
        set_rate(self.optimizer, rate)
        return rate

    def train_step(self, parts: Parts[Batch]) -> dict[str, float]:
        """One update on the sum of the four losses, all with weight 1."""
        self.detector.train()
        values = mean_gradients(
            self.detector, parts, self.config["parts"], self._loss, [self.config["seed"], self.step]
        )
        nn.utils.clip_grad_norm_(self.detector.parameters(), 5.0, error_if_nonfinite=True)
        self.optimizer.step()
        checkpoint.follow(self.average, self.detector, self.config["optimizer"]["average"], self.step)
        return values

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        images, targets = batch
        images = [image.to(self.device) for image in images]
        targets = [{name: value.to(self.device) for name, value in target.items()} for target in targets]
        losses = self.detector(images, targets)
        return sum(losses.values()), losses


def _compute_in(context: torch.autocast, module: nn.Module) -> None:
    """Let `module` compute in this precision and hand on float32: boxes need more than the 8 bits of bf16."""
    forward = module.forward

    def lowered(x: Tensor) -> Tensor | dict[str, Tensor]:
        with context:
            result = forward(x)
        return {name: value.float() for name, value in result.items()} if isinstance(result, dict) else result.float()

    module.forward = lowered


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """Train until `steps` or the end of `patience`; write `last.pt` and `best.pt` into `out` and return the latter.

    Raises:
        InputError: data, checkpoint or device missing, or patients on both sides of the split.
        Stopped: SIGTERM came; `last.pt` is the state at that step.
    """
    out.mkdir(parents=True, exist_ok=True)
    with StopSignal() as stop, processes(device) as here, without_subnormals():
        run = DetectorRun(config, here)
        run.begin(out, resume)
        sources = run.load(out, stop)
        step_mm = config["detector"]["slice_step_mm"]
        slices = DetectorSlices(
            *(sources.train, sources.backgrounds, config["sampling"], config["window_hu"], step_mm, config["seed"]),
            negatives=sources.negatives,
        )
        with RunLog(out, config["steps"], run.step) as log:
            _loop(run, slices, sources.validation.spread(config["validate_crops"]), log, out, stop)
    return out / "best.pt"


def _loop(
    run: DetectorRun, slices: DetectorSlices, validation: CropDataset, log: RunLog, out: Path, stop: StopSignal
) -> None:
    def end_epoch() -> None:
        _end_epoch(run, validation, log, out, stop)

    run.settle(end_epoch, out, stop)
    for parts in load_steps(slices, run.config, run.step):
        if run.finished():
            return
        rate = run.set_rate()
        losses = run.train_step(parts)
        run.step += 1
        log.step(run.step, losses | {"rate": rate})
        run.settle(end_epoch, out, stop)


def _end_epoch(run: DetectorRun, validation: CropDataset, log: RunLog, out: Path, stop: StopSignal) -> None:
    window, step_mm = run.config["window_hu"], run.config["detector"]["slice_step_mm"]
    sensitivity = crop_froc(run.average, validation, window, step_mm, stop)
    score = sum(sensitivity.values()) / len(sensitivity)
    rates = {f"at_{rate}": value for rate, value in sensitivity.items()}
    figures = {"score": score, "best": max(score, run.best), **rates}
    drawn = None
    if log.draws:
        drawn = stop.unless_given(lambda: detector_examples(run.average, validation, window, step_mm))
    log.epoch(run.step, figures, {"reference-green-found-red": drawn})
    run.judge(score, out)
