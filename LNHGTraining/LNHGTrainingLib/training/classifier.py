"""Train the candidate classifier: cross-entropy over candidates of crops and whole scans.

    lnhg-train train classifier --config classifier.toml --data ../shared/data runs/classifier [--resume]

The recipe validates once, at its end: no choice is made by the validation fold.
"""

import copy
import math
from pathlib import Path

import numpy as np
import torch
from LNHGLib.models.classifier import build_classifier
from LNHGLib.segmentation.classification import classify
from LNHGLib.segmentation.preprocessing import normalize
from LNHGLib.stats.roc import areas
from torch import Tensor, nn

from LNHGTrainingLib.config import ClassifierConfig, build, to_table
from LNHGTrainingLib.data.candidates import SIDE, Candidates, load_candidates, seen_field
from LNHGTrainingLib.data.classifier_batches import CandidateFields
from LNHGTrainingLib.training import run
from LNHGTrainingLib.training.distributed import MicroBatches, mean_gradients
from LNHGTrainingLib.training.ema import update_ema
from LNHGTrainingLib.training.losses import precision, set_rate
from LNHGTrainingLib.training.run import Run
from LNHGTrainingLib.training.sigterm import StopSignal

Batch = tuple[Tensor, Tensor]


class ClassifierRun(Run):
    """Network, optimizer and counters of one run.

    Args:
        config: of the training (see Resources/classifier.toml).
        device: where to compute.
    """

    part = "classifier"
    stateful = ("classifier", "ema", "optimizer")
    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.classifier = build_classifier(to_table(config.classifier)).to(device, memory_format=torch.channels_last_3d)
        self.ema = copy.deepcopy(self.classifier).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.classifier.parameters(), weight_decay=config.optimizer.weight_decay)

    def prepare(self, out: Path, stop: StopSignal) -> tuple[CandidateFields, Candidates]:
        """Return the training folds' candidates as batches, and those of the validation folds."""
        config, cache = self.config, out.parent / "cache"
        folds = config.data.train_folds, config.data.validation_folds
        found, validation = self.before_first_step(
            lambda: [load_candidates(config, numbers, cache) for numbers in folds], stop
        )
        left = found.of(~np.isin(found.patient, config.without))
        return CandidateFields(left, config), validation.of(validation.marked)

    def train_step(self, batches: MicroBatches[Batch]) -> dict[str, float]:
        """Update the classifier once on the cross-entropy; return it and the rate."""

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            fields, nodules = (part.to(self.device) for part in batch)
            with precision(self.config.precision, self.device):
                logits = self.classifier(fields).float()
            value = nn.functional.binary_cross_entropy_with_logits(logits, nodules)
            return value, {"cross_entropy": value}

        rate = self.config.optimizer.rate * (1 + math.cos(math.pi * self.step / self.config.steps)) / 2
        set_rate(self.optimizer, rate)
        self.classifier.train()
        values = mean_gradients(self.classifier, batches, self.micro_batches, loss, [self.config.seed, self.step])
        nn.utils.clip_grad_norm_(self.classifier.parameters(), 5.0, error_if_nonfinite=True)
        self.optimizer.step()
        update_ema(self.ema, self.classifier, self.config.optimizer.ema_decay, self.step)
        return values | {"rate": rate}

    def validate(self, candidates: Candidates, stop: StopSignal, plot: bool) -> tuple[float, dict[str, float], dict]:
        """Score the averaged classifier by the area under its ROC curve, as `Run.validate`."""
        scores = candidate_scores(self.ema, candidates, self.config.window_hu)
        area = float(areas(scores[None], candidates.nodule == 1).area[0])
        return area, {"auc": area, "best": max(area, self.best)}, {}


def candidate_scores(network: nn.Module, candidates: Candidates, window_hu: list[float]) -> np.ndarray:
    """Return the score of each candidate as the pipeline would give it, (N,).

    Args:
        network: evaluated.
        candidates: N of them.
        window_hu: HU that become 0 and 1.
    """
    fields = [
        seen_field(normalize(hu, window_hu), reach, (SIDE / 2,) * 3, window_hu)
        for hu, reach in zip(candidates.hu, candidates.reach, strict=True)
    ]
    return classify(network, fields)


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """As `run.train`, for the classifier.

    Args:
        config: the configuration as read, with the folder of the data.
        out: folder of the run.
        resume: go on from `last.pt`, if there is one.
        device: "cpu", "auto", "cuda" or "cuda:N".
    """
    return run.train(ClassifierRun, build(ClassifierConfig, config), out, resume, device)
