"""Train branch 1: WGAN-GP critic and generator steps in one plain loop.

    lnhg-train train segmenter --config segmenter.toml --data ../shared/data runs/segmenter [--resume]

The generator minimizes weighted MSE, perceptual, adversarial, soft-Dice and cross-entropy terms; the paper's are the
first three. Every `epoch_steps` batches the averaged generator is scored by Dice on validation crops, which alone
decides what `best.pt` is (register L5) and when `patience` ends. `distributed` says how several processes share a step.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from LNHGLib.models.gan import Critic
from LNHGLib.models.registry import build_generator
from torch import Tensor, nn

from LNHGTrainingLib.config import NoduleNetConfig, SegmenterConfig, build, to_table
from LNHGTrainingLib.data.crops import CropDataset
from LNHGTrainingLib.data.segmenter_batches import Batch, SegmenterPatches
from LNHGTrainingLib.training import run
from LNHGTrainingLib.training.distributed import MicroBatches, mean_gradients
from LNHGTrainingLib.training.ema import update_ema
from LNHGTrainingLib.training.losses import (
    Perceptual,
    batch_dice_loss,
    critic_loss,
    cross_entropy,
    dice_loss,
    generalized_dice_loss,
    halved_rate,
    masked_mse,
    precision,
    set_rate,
)
from LNHGTrainingLib.training.run import Run
from LNHGTrainingLib.training.sigterm import StopSignal
from LNHGTrainingLib.training.tensorboard_images import segmenter_examples
from LNHGTrainingLib.training.validate import dice_by_size


class GeneratorRun(Run):
    """A run that trains a generator on patches and scores its average by Dice.

    Args:
        config: of the training.
        device: where to compute.
    """

    part = "generator"
    batches = SegmenterPatches
    config: SegmenterConfig | NoduleNetConfig

    def __init__(self, config: SegmenterConfig | NoduleNetConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.generator = build_generator(to_table(config.generator)).to(device, memory_format=torch.channels_last_3d)
        self.ema = copy.deepcopy(self.generator).eval().requires_grad_(False)

    def validate(
        self, crops: CropDataset, stop: StopSignal, plot: bool
    ) -> tuple[float, dict[str, float], dict[str, np.ndarray | None]]:
        """Score the averaged generator by Dice, as `Run.validate`."""
        window = self.config.window_hu
        metrics = dice_by_size(self.ema, crops, window, self.config.generator.threshold, stop)
        examples = stop.unless_given(lambda: segmenter_examples(self.ema, crops, window)) if plot else None
        best = max(metrics["dice"], self.best)
        return metrics["dice"], {"dice": metrics["dice"], "best": best} | metrics, {"ct-reference-generated": examples}


class SegmenterRun(GeneratorRun):
    """Networks, optimizers and counters of one run.

    Args:
        config: of the training (see Resources/segmenter.toml).
        device: where to compute.
    """

    stateful = ("generator", "ema", "critic", "generator_optimizer", "critic_optimizer")
    config: SegmenterConfig

    def __init__(self, config: SegmenterConfig, device: torch.device) -> None:
        super().__init__(config, device)
        slab = tuple(config.critic.slab) if config.critic.slab else None
        self.critic = Critic(config.critic.width, slab, config.critic.stride).to(device)
        betas, decay = tuple(config.optimizer.betas), config.optimizer.weight_decay
        if config.optimizer.kind == "sgd":
            options = {"lr": config.optimizer.rate, "momentum": betas[0], "nesterov": True, "weight_decay": decay}
            self.generator_optimizer = torch.optim.SGD(self.generator.parameters(), **options)
        else:
            self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), betas=betas, weight_decay=decay)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), betas=betas)
        weights = config.loss.perceptual_network
        wanted = weights != "off" and config.loss.perceptual > 0
        self.perceptual = Perceptual(weights).to(device) if wanted else None

    def adversarial(self) -> bool:
        """Return whether the critic takes part at this step."""
        return self.config.loss.adversarial > 0 and self.step >= self.config.loss.adversarial_from_step

    def critic_step(self, batches: MicroBatches[Batch], repeat: int = 0) -> dict[str, float]:
        """Update the critic once on detached fakes; the generator's running statistics stay (register L4, L16).

        Args:
            batches: this process's micro-batches.
            repeat: number of this update within the step.
        """

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            with precision(self.config.precision, self.device):
                with torch.no_grad():
                    fake = self.generator(batch.image).float() * batch.known
                alpha, real = torch.rand(len(fake), device=self.device), batch.target * batch.known
                loss = critic_loss(self.critic, real=real, fake=fake, alpha=alpha, penalty=self.config.loss.penalty)
            return loss, {"critic": loss}

        self.generator.eval()
        seed = [self.config.seed, self.step, repeat]
        values = mean_gradients(self.critic, batches, self.micro_batches, loss, seed)
        self.generator.train()
        self.critic_optimizer.step()
        return values

    def generator_step(self, batches: MicroBatches[Batch]) -> dict[str, float]:
        """Update the generator once on the weighted sum of its losses, in a single backward pass (register L2, L13)."""

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            terms = self.generator_terms(batch)
            return sum(getattr(self.config.loss, name) * term for name, term in terms.items()), terms

        self.generator.train()
        self.critic.requires_grad_(False)
        seed = [self.config.seed, self.step]
        values = mean_gradients(self.generator, batches, self.micro_batches, loss, seed)
        self.critic.requires_grad_(True)
        nn.utils.clip_grad_norm_(self.generator.parameters(), 5.0, error_if_nonfinite=True)
        self.generator_optimizer.step()
        update_ema(self.ema, self.generator, self.config.optimizer.ema_decay, self.step)
        return values

    def generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Return the unweighted losses of the generator by name; sums over voxels are float32."""
        weights = self.config.loss
        with precision(self.config.precision, self.device):
            residual = self.generator.residual(batch.image).float()
        fake = self.generator.image(residual, batch.image)
        terms = {"mse": masked_mse(fake, batch.target, batch.known)}
        if any((weights.dice, weights.cross_entropy, weights.batch_dice, weights.generalized_dice)):
            logits = self.generator.logits(residual, self.config.generator.threshold, weights.sharpness)
            terms["dice"] = dice_loss(logits, batch.mask, batch.known)
            terms["cross_entropy"] = cross_entropy(logits, batch.mask, batch.known, weights.nodule_weight)
            if weights.batch_dice:
                terms["batch_dice"] = batch_dice_loss(logits, batch.mask, batch.known)
            if weights.generalized_dice:
                terms["generalized_dice"] = generalized_dice_loss(logits, batch.mask, batch.known)
        with precision(self.config.precision, self.device):
            if self.perceptual is not None:
                terms["perceptual"] = self.perceptual(fake * batch.known, batch.target * batch.known)
            if self.adversarial():
                terms["adversarial"] = -self.critic(fake * batch.known).float().mean()
        return terms

    def train_step(self, batches: MicroBatches[Batch]) -> dict[str, float]:
        """Set the rate, update the critic, then the generator, and return the rate and all losses."""
        schedule = self.config.optimizer
        epoch = self.step // self.config.epoch_steps
        rate = halved_rate(schedule.rate, epoch, schedule.halve_every, schedule.floor)
        set_rate(self.generator_optimizer, rate)
        set_rate(self.critic_optimizer, rate)
        batches = [(number, batch.to(self.device)) for number, batch in batches]
        losses = {}
        if self.adversarial():
            for repeat in range(self.config.loss.critic_steps):
                losses = self.critic_step(batches, repeat)
        counted = {}
        if self.config.sampling.injected:
            counted["injected"] = float(sum(int(batch.injected.sum()) for _, batch in batches))
        return losses | self.generator_step(batches) | counted | {"rate": rate}


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """As `run.train`, for this branch.

    Args:
        config: the configuration as read, with the folder of the data.
        out: folder of the run.
        resume: go on from `last.pt`, if there is one.
        device: "cpu", "auto", "cuda" or "cuda:N".
    """
    return run.train(SegmenterRun, build(SegmenterConfig, config), out, resume, device)
