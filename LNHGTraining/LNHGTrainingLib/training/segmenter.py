"""Train branch 1: WGAN-GP critic and generator steps in one plain loop.

    lnhg-train train segmenter --config segmenter.toml --data ../shared/data runs/segmenter [--resume]

The generator minimises weighted MSE, perceptual, adversarial, soft-Dice and cross-entropy terms; the paper's are the
first three. Every `epoch_steps` batches the averaged generator is scored by Dice on validation crops, which alone
decides what `best.pt` is (register L5) and when `patience` ends. `distributed` says how several processes share a step.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from LNHGLib.models.gan import Critic
from torch import Tensor, nn

from LNHGTrainingLib.baselines.monai_unet import build_generator
from LNHGTrainingLib.data.crops import CropDataset
from LNHGTrainingLib.data.loading import load_steps
from LNHGTrainingLib.data.segmenter_batches import Batch, SegmenterPatches
from LNHGTrainingLib.training import checkpoint
from LNHGTrainingLib.training.distributed import Parts, mean_gradients, processes, without_subnormals
from LNHGTrainingLib.training.log import RunLog
from LNHGTrainingLib.training.losses import (
    Perceptual,
    critic_loss,
    cross_entropy,
    dice_loss,
    halved_rate,
    masked_mse,
    precision,
    set_rate,
)
from LNHGTrainingLib.training.sigterm import StopSignal
from LNHGTrainingLib.training.tensorboard_images import segmenter_examples
from LNHGTrainingLib.training.validate import crop_dice


class SegmenterRun(checkpoint.Run):
    """Networks, optimisers and counters of one run.

    Args:
        config: the configuration (see Resources/segmenter.toml).
        device: where to compute.
    """

    part = "generator"
    kept = ("generator", "average", "critic", "generator_optimizer", "critic_optimizer")

    def __init__(self, config: dict, device: torch.device) -> None:
        super().__init__(config, device)
        self.generator = build_generator(config["generator"]).to(device, memory_format=torch.channels_last_3d)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        slab = config["critic"].get("slab")
        self.critic = Critic(config["critic"]["width"], tuple(slab) if slab else None, config["critic"]["stride"]).to(
            device
        )
        betas = tuple(config["optimizer"]["betas"])
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), betas=betas)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), betas=betas)
        weights = config["loss"]["perceptual_network"]
        wanted = weights != "off" and config["loss"]["perceptual"] > 0
        self.perceptual = Perceptual(weights).to(device) if wanted else None

    def adversarial(self) -> bool:
        """Whether the critic takes part at this step."""
        return self.config["loss"]["adversarial"] > 0 and self.step >= self.config["loss"]["adversarial_from_step"]

    def set_rates(self) -> float:
        """Give both optimisers the learning rate of this step."""
        schedule = self.config["optimizer"]
        epoch = self.step // self.config["epoch_steps"]
        rate = halved_rate(schedule["rate"], epoch, schedule["halve_every"], schedule["floor"])
        set_rate(self.generator_optimizer, rate)
        set_rate(self.critic_optimizer, rate)
        return rate

    def critic_step(self, parts: Parts[Batch], repeat: int = 0) -> dict[str, float]:
        """One critic update on detached fakes; the generator's running statistics stay (register L4, L16)."""
        self.generator.eval()
        seed = [self.config["seed"], self.step, repeat]
        values = mean_gradients(self.critic, parts, self.config["parts"], self._critic_loss, seed)
        self.generator.train()
        self.critic_optimizer.step()
        return values

    def _critic_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        penalty = self.config["loss"]["penalty"]
        with precision(self.config, self.device):
            with torch.no_grad():
                fake = self.generator(batch.image).float() * batch.known
            alpha = torch.rand(len(fake), device=self.device)
            loss = critic_loss(self.critic, real=batch.target * batch.known, fake=fake, alpha=alpha, penalty=penalty)
        return loss, {"critic": loss}

    def generator_step(self, parts: Parts[Batch]) -> dict[str, float]:
        """One generator update on the weighted sum of its losses, in a single backward pass (register L2, L13)."""
        self.generator.train()
        self.critic.requires_grad_(False)
        seed = [self.config["seed"], self.step]
        values = mean_gradients(self.generator, parts, self.config["parts"], self._generator_loss, seed)
        self.critic.requires_grad_(True)
        nn.utils.clip_grad_norm_(self.generator.parameters(), 5.0, error_if_nonfinite=True)
        self.generator_optimizer.step()
        checkpoint.follow(self.average, self.generator, self.config["optimizer"]["average"], self.step)
        return values

    def _generator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        terms = self.generator_terms(batch)
        return sum(self.config["loss"][name] * term for name, term in terms.items()), terms

    def generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """The unweighted losses of the generator by name; sums over voxels are float32."""
        weights = self.config["loss"]
        with precision(self.config, self.device):
            residual = self.generator.residual(batch.image).float()
        fake = self.generator.image(residual, batch.image)
        terms = {"mse": masked_mse(fake, batch.target, batch.known)}
        if weights["dice"] or weights["cross_entropy"]:
            logits = self.generator.logits(residual, self.config["generator"]["threshold"], weights["sharpness"])
            terms["dice"] = dice_loss(logits, batch.mask, batch.known)
            terms["cross_entropy"] = cross_entropy(logits, batch.mask, batch.known)
        with precision(self.config, self.device):
            if self.perceptual is not None:
                terms["perceptual"] = self.perceptual(fake * batch.known, batch.target * batch.known)
            if self.adversarial():
                terms["adversarial"] = -self.critic(fake * batch.known).float().mean()
        return terms


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """Train until `steps` or the end of `patience`; write `last.pt` and `best.pt` into `out` and return the latter.

    Raises:
        InputError: data, checkpoint or device missing, or patients on both sides of the split.
        Stopped: SIGTERM came; `last.pt` is the state at that step.
    """
    out.mkdir(parents=True, exist_ok=True)
    with StopSignal() as stop, processes(device) as here, without_subnormals():
        run = SegmenterRun(config, here)
        run.begin(out, resume)
        sources = run.load(out, stop)
        patches = SegmenterPatches(
            *(sources.train, sources.backgrounds, config["sampling"], config["window_hu"], config["seed"]),
            target=config.get("target", "intensity"),
            negatives=sources.negatives,
        )
        with RunLog(out, config["steps"], run.step) as log:
            _loop(run, patches, sources.validation.spread(config["validate_crops"]), log, out, stop)
    return out / "best.pt"


def _loop(
    run: SegmenterRun,
    patches: SegmenterPatches,
    validation: CropDataset,
    log: RunLog,
    out: Path,
    stop: StopSignal,
) -> None:
    def end_epoch() -> None:
        _end_epoch(run, validation, log, out, stop)

    run.settle(end_epoch, out, stop)
    for drawn in load_steps(patches, run.config, run.step):
        if run.finished():
            return
        rate = run.set_rates()
        parts = [(number, batch.to(run.device)) for number, batch in drawn]
        losses = {}
        if run.adversarial():
            for repeat in range(run.config["loss"]["critic_steps"]):
                losses = run.critic_step(parts, repeat)
        losses |= run.generator_step(parts)
        run.step += 1
        log.step(run.step, losses | {"rate": rate})
        run.settle(end_epoch, out, stop)


def _end_epoch(run: SegmenterRun, validation: CropDataset, log: RunLog, out: Path, stop: StopSignal) -> None:
    window = run.config["window_hu"]
    scores = crop_dice(run.average, validation, window, run.config["generator"]["threshold"], stop)
    dice = float(np.mean(scores))
    diameter = np.array([float(crop.row["luna_diameter_exact_mm"]) for crop in validation])
    sizes = {"small": diameter < 6, "middle": (diameter >= 6) & (diameter < 10), "large": diameter >= 10}
    by_size = {f"dice_{name}": float(np.mean(scores[chosen])) for name, chosen in sizes.items() if chosen.any()}
    figures = {"dice": dice, "best": max(dice, run.best), **by_size}
    drawn = stop.unless_given(lambda: segmenter_examples(run.average, validation, window)) if log.draws else None
    log.epoch(run.step, figures, {"ct-reference-generated": drawn})
    run.judge(dice, out)
