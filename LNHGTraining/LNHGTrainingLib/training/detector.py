"""Train branch 2: Faster R-CNN with GIoU losses in one plain loop.

    lnhg-train train detector --config detector.toml --data ../shared/data runs/detector [--resume]

Every `epoch_steps` batches the averaged detector is scored on whole validation crops: boxes are linked into candidates,
and the mean sensitivity at 1, 2, 4 and 8 false candidates per lung volume alone decides what `best.pt` is and when
`patience` ends. `distributed` says how several processes share a step.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from LNHGLib.models.detector import build_detector
from torch import Tensor, nn

from LNHGTrainingLib.config import DetectorConfig, build, to_table
from LNHGTrainingLib.data.crops import CropDataset
from LNHGTrainingLib.data.detector_batches import DetectorSlices
from LNHGTrainingLib.training import run
from LNHGTrainingLib.training.distributed import MicroBatches, mean_gradients
from LNHGTrainingLib.training.ema import update_ema
from LNHGTrainingLib.training.losses import precision, set_rate
from LNHGTrainingLib.training.run import Run
from LNHGTrainingLib.training.sigterm import StopSignal
from LNHGTrainingLib.training.tensorboard_images import detector_examples
from LNHGTrainingLib.training.validate import crop_froc

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


class DetectorRun(Run):
    """Network, optimizer and counters of one run.

    Args:
        config: of the training (see Resources/detector.toml).
        device: where to compute.
    """

    part = "detector"
    batches = DetectorSlices
    stateful = ("detector", "ema", "optimizer")
    config: DetectorConfig

    def __init__(self, config: DetectorConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.detector = build_detector(to_table(config.detector)).to(device)
        if device.type == "cuda":  # on CPUs torch crashes on channels-last convolutions with few channels
            self.detector.to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.detector).eval().requires_grad_(False)
        for module in (self.detector.backbone, self.detector.roi_heads.box_head):
            compute_in(precision(config.precision, device), module)
        self.optimizer = torch.optim.Adam(self.detector.parameters(), weight_decay=config.optimizer.weight_decay)

    def train_step(self, batches: MicroBatches[Batch]) -> dict[str, float]:
        """Update the detector once on the sum of the four losses, all with weight 1; return them and the rate."""

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            images, targets = batch
            images = [image.to(self.device) for image in images]
            targets = [{name: value.to(self.device) for name, value in target.items()} for target in targets]
            losses = self.detector(images, targets)
            return sum(losses.values()), losses

        schedule = self.config.optimizer
        rate = schedule.rate * schedule.gamma ** (self.step // self.config.epoch_steps)
        set_rate(self.optimizer, rate)
        self.detector.train()
        values = mean_gradients(self.detector, batches, self.micro_batches, loss, [self.config.seed, self.step])
        nn.utils.clip_grad_norm_(self.detector.parameters(), 5.0, error_if_nonfinite=True)
        self.optimizer.step()
        update_ema(self.ema, self.detector, schedule.ema_decay, self.step)
        return values | {"rate": rate}

    def validate(
        self, crops: CropDataset, stop: StopSignal, plot: bool
    ) -> tuple[float, dict[str, float], dict[str, np.ndarray | None]]:
        """Score the averaged detector by its mean sensitivity, as `Run.validate`."""
        window, step_mm = self.config.window_hu, self.config.detector.slice_step_mm
        sensitivity = crop_froc(self.ema, crops, window, step_mm, stop)
        score = sum(sensitivity.values()) / len(sensitivity)
        metrics = {"score": score, "best": max(score, self.best)}
        metrics |= {f"at_{rate}": value for rate, value in sensitivity.items()}
        examples = None
        if plot:
            examples = stop.unless_given(lambda: detector_examples(self.ema, crops, window, step_mm))
        return score, metrics, {"reference-green-found-red": examples}


def compute_in(context: torch.autocast, module: nn.Module) -> None:
    """Let a module compute in a precision and hand on float32: boxes need more than the 8 bits of bf16.

    Args:
        context: the precision.
        module: changed in place.
    """
    forward = module.forward

    def in_context(x: Tensor) -> Tensor | dict[str, Tensor]:
        with context:
            result = forward(x)
        return {name: value.float() for name, value in result.items()} if isinstance(result, dict) else result.float()

    module.forward = in_context


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """As `run.train`, for this branch.

    Args:
        config: the configuration as read, with the folder of the data.
        out: folder of the run.
        resume: go on from `last.pt`, if there is one.
        device: "cpu", "auto", "cuda" or "cuda:N".
    """
    return run.train(DetectorRun, build(DetectorConfig, config), out, resume, device)
