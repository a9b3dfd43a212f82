"""Train branch 1: WGAN-GP critic and generator steps in one plain loop.

    lnhg-train train segmenter --config segmenter.toml --data ../shared/data runs/segmenter [--resume]

The generator minimises weighted MSE, perceptual, adversarial, soft-Dice and cross-entropy terms; the paper's are the
first three. Every `epoch_steps` batches the averaged generator is scored by Dice on validation crops, which alone
decides what `best.pt` is (register L5).
"""

import copy
import time
from pathlib import Path

import numpy as np
import torch
from LNHGLib.gan import Critic, build_generator
from torch import Tensor, nn

from LNHGTrainingLib import checkpoint
from LNHGTrainingLib.background import load_sources
from LNHGTrainingLib.data import Labelled
from LNHGTrainingLib.log import RunLog
from LNHGTrainingLib.losses import (
    Perceptual,
    critic_loss,
    cross_entropy,
    dice_loss,
    halved_rate,
    masked_mse,
    set_rate,
    soft_mask,
)
from LNHGTrainingLib.patches import Batch, SegmenterPatches
from LNHGTrainingLib.validate import crop_dice


class SegmenterRun:
    """Networks, optimisers and counters of one run.

    Args:
        config: the configuration (see Resources/segmenter.toml).
        device: where to compute.
    """

    def __init__(self, config: dict, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config["seed"])
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
        self.perceptual = None if weights == "off" else Perceptual(weights).to(device)
        self.step = 0
        self.best = -1.0

    def state(self) -> dict:
        """All that `restore` needs."""
        parts = ("generator", "average", "critic", "generator_optimizer", "critic_optimizer")
        state = {name: getattr(self, name).state_dict() for name in parts}
        return state | {"step": self.step, "best": self.best, "config": self.config, "random": torch.get_rng_state()}

    def restore(self, state: dict) -> None:
        """Go on from a checkpoint's state."""
        for name in ("generator", "average", "critic", "generator_optimizer", "critic_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.best = state["step"], state["best"]
        torch.set_rng_state(state["random"])

    def adversarial(self) -> bool:
        """Whether the critic takes part at this step."""
        return self.config["loss"]["adversarial"] > 0 and self.step >= self.config["loss"]["adversarial_from_step"]

    def critic_step(self, batch: Batch) -> float:
        """One critic update on detached fakes; the generator's running statistics stay (register L4, L16)."""
        with torch.no_grad():
            self.generator.eval()
            fake = self.generator(batch.image) * batch.known
            self.generator.train()
        alpha = torch.rand(len(fake), device=self.device)
        real = batch.target * batch.known
        loss = critic_loss(self.critic, real=real, fake=fake, alpha=alpha, penalty=self.config["loss"]["penalty"])
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return loss.item()

    def generator_step(self, batch: Batch) -> dict[str, float]:
        """One generator update on the weighted sum of its losses, in a single backward pass (register L2, L13)."""
        self.generator.train()
        terms = self.generator_terms(batch)
        weights = self.config["loss"]
        total = sum(weights[name] * term for name, term in terms.items())
        self.generator_optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.generator.parameters(), 5.0, error_if_nonfinite=True)
        self.generator_optimizer.step()
        checkpoint.follow(self.average, self.generator, self.config["optimizer"]["average"], self.step)
        return {name: term.item() for name, term in terms.items()}

    def generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """The unweighted losses of the generator by name."""
        weights = self.config["loss"]
        residual = self.generator.residual(batch.image)
        fake = torch.relu(residual)
        terms = {"mse": masked_mse(fake, batch.target, batch.known)}
        if weights["dice"] or weights["cross_entropy"]:
            logits = soft_mask(residual, self.config["generator"]["threshold"], weights["sharpness"])
            terms["dice"] = dice_loss(logits, batch.mask, batch.known)
            terms["cross_entropy"] = cross_entropy(logits, batch.mask, batch.known)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(fake * batch.known, batch.target * batch.known)
        if self.adversarial():
            self.critic.requires_grad_(False)
            terms["adversarial"] = -self.critic(fake * batch.known).mean()
            self.critic.requires_grad_(True)
        return terms


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """Train until `steps`, writing `last.pt` and `best.pt` into `out`; returns the path of the best.

    Raises:
        InputError: data or checkpoint missing, or patients on both sides of the split.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = SegmenterRun(config, torch.device(device))
    if resume and (out / "last.pt").exists():
        run.restore(checkpoint.load(out / "last.pt"))
    sources = load_sources(config["data"], out.parent / "cache")
    patches = SegmenterPatches(
        sources.train, sources.backgrounds, config["sampling"], config["window_hu"], config["seed"]
    )
    with RunLog(out, config["steps"], run.step) as log:
        _loop(run, patches, sources.validation, log, out)
    return out / "best.pt"


def _loop(run: SegmenterRun, patches: SegmenterPatches, validation: list[Labelled], log: RunLog, out: Path) -> None:
    config, epoch_steps = run.config, run.config["epoch_steps"]
    optimizer = config["optimizer"]
    started = time.monotonic()
    while run.step < config["steps"]:
        rate = halved_rate(optimizer["rate"], run.step // epoch_steps, optimizer["halve_every"], optimizer["floor"])
        set_rate(run.generator_optimizer, rate)
        set_rate(run.critic_optimizer, rate)
        batch = _to_device(patches.batch(run.step, config["batch"]), run.device)
        losses = {}
        if run.adversarial():
            for _ in range(config["loss"]["critic_steps"]):
                losses["critic"] = run.critic_step(batch)
        losses |= run.generator_step(batch)
        run.step += 1
        log.step(run.step, losses | {"rate": rate})
        if run.step % epoch_steps == 0 or run.step == config["steps"]:
            _end_epoch(run, validation, log, out, time.monotonic() - started)


def _end_epoch(run: SegmenterRun, validation: list[Labelled], log: RunLog, out: Path, seconds: float) -> None:
    subset = validation[:: max(1, len(validation) // run.config["validate_crops"])]
    scores = crop_dice(run.average, subset, run.config["window_hu"], run.config["generator"]["threshold"])
    dice = float(np.mean(scores))
    if dice > run.best:
        run.best = dice
        checkpoint.save(out / "best.pt", run.state())
    checkpoint.save(out / "last.pt", run.state())
    diameter = np.array([float(crop.row["luna_diameter_exact_mm"]) for crop in subset])
    sizes = {"small": diameter < 6, "middle": (diameter >= 6) & (diameter < 10), "large": diameter >= 10}
    by_size = {f"dice_{name}": float(np.mean(scores[chosen])) for name, chosen in sizes.items() if chosen.any()}
    log.epoch(run.step, {"dice": dice, "best": run.best, **by_size, "seconds": seconds})


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(part.to(device) for part in (batch.image, batch.target, batch.mask, batch.known)))
