"""Train CT-GAN of document 002: an injector that fills in the hidden middle of a nodule's cube, and a discriminator.

    lnhg-train train injector --config document-002-ct-gan.toml --data ../shared/data runs/ct-gan [--resume]

Only nodules of the training folds are seen. Epochs are scored by how close the middle of validation cubes is to what
was hidden; that says little of how real it looks, so `last.pt` is the one to inject with.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from LNHGLib.errors import InputError
from torch import Tensor

from LNHGTrainingLib.baselines.ct_gan import HIDDEN, SIDE, Discriminator, Equalizer, Injector, hide
from LNHGTrainingLib.config import InjectorConfig, build
from LNHGTrainingLib.data.crops import CropDataset, assert_disjoint, load_crops, patients
from LNHGTrainingLib.data.injector_batches import InjectorCubes, fit_equalizer
from LNHGTrainingLib.training import run
from LNHGTrainingLib.training.distributed import MicroBatches, map_over_ranks, mean_gradients
from LNHGTrainingLib.training.ema import update_ema
from LNHGTrainingLib.training.losses import adversarial_squares, discriminator_squares, precision
from LNHGTrainingLib.training.run import Run
from LNHGTrainingLib.training.sigterm import StopSignal
from LNHGTrainingLib.training.tensorboard_images import injector_examples


class InjectorRun(Run):
    """Networks, optimizers, equalization and counters of one run.

    Args:
        config: of the training (see Resources/document-002-ct-gan.toml).
        device: where to compute.
    """

    part = "injector"
    stateful = ("injector", "ema", "discriminator", "injector_optimizer", "discriminator_optimizer", "equalizer")
    config: InjectorConfig

    def __init__(self, config: InjectorConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.injector = Injector(config.injector.width).to(device, memory_format=torch.channels_last_3d)
        self.ema = copy.deepcopy(self.injector).eval().requires_grad_(False)
        self.discriminator = Discriminator(config.discriminator.width).to(device)
        self.equalizer = Equalizer()  # fitted by `prepare`
        schedule = config.optimizer
        betas = tuple(schedule.betas)
        self.injector_optimizer = torch.optim.Adam(self.injector.parameters(), schedule.rate, betas)
        rate = schedule.discriminator_rate
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), rate, betas)

    def state(self) -> dict:
        """Return what `Run.state` does, and whose nodules were seen."""
        return super().state() | {"patients": sorted(self.patients)}

    def prepare(self, out: Path, stop: StopSignal) -> tuple[InjectorCubes, InjectorCubes]:
        """Return the training folds' nodules as batches, and those of the validation folds."""
        data, (low, high) = self.config.data, self.config.sampling.diameter_mm
        files = Path(data.folder) / data.crops, Path(data.folder) / data.table
        sides = []
        for folds in (data.train_folds, data.validation_folds):
            crops = load_crops(*files, folds, data.min_readers)
            fitting = [row for row in crops.rows if low <= float(row["luna_diameter_exact_mm"] or 0) <= high]
            if not fitting:
                raise InputError(
                    f"Folds {folds} have no nodule of {low:g} to {high:g} mm, expected one; mend sampling.diameter_mm."
                )
            sides.append(CropDataset(crops.path, fitting))
        train, validation = sides
        assert_disjoint(train, validation)
        self.patients = patients(train)
        self.equalizer = self.before_first_step(lambda: fit_equalizer(train), stop)
        some = validation.spread(self.config.validate_crops)
        return tuple(InjectorCubes(crops, self.equalizer, self.config) for crops in (train, some))

    def train_step(self, batches: MicroBatches[Tensor]) -> dict[str, float]:
        """Update the discriminator once, then the injector, and return their losses."""
        batches = [(number, cubes.to(self.device)) for number, cubes in batches]
        return self.discriminator_step(batches) | self.injector_step(batches)

    def discriminator_step(self, batches: MicroBatches[Tensor]) -> dict[str, float]:
        """Update the discriminator once; the injector's running statistics stay, and nothing is dropped in it."""

        def loss(cubes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            hidden = hide(cubes)
            with precision(self.config.precision, self.device):
                with torch.no_grad():
                    fake = self.injector(hidden).float()
                value = discriminator_squares(self.discriminator(cubes, hidden), self.discriminator(fake, hidden))
            return value, {"discriminator": value}

        self.injector.eval()
        self.discriminator.train()
        seed = [self.config.seed, self.step, 1]
        values = mean_gradients(self.discriminator, batches, self.micro_batches, loss, seed)
        self.discriminator_optimizer.step()
        return values

    def injector_step(self, batches: MicroBatches[Tensor]) -> dict[str, float]:
        """Update the injector once on the discriminator's view and the absolute difference of the whole cube."""

        def loss(cubes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            hidden = hide(cubes)
            with precision(self.config.precision, self.device):
                fake = self.injector(hidden).float()
                fooled = adversarial_squares(self.discriminator(fake, hidden))
            difference = (fake - cubes).abs().mean()
            terms = {"adversarial": fooled, "absolute": difference}
            return fooled + self.config.loss.absolute * difference, terms

        self.injector.train()
        self.discriminator.eval().requires_grad_(False)
        values = mean_gradients(self.injector, batches, self.micro_batches, loss, [self.config.seed, self.step])
        self.discriminator.requires_grad_(True)
        self.injector_optimizer.step()
        update_ema(self.ema, self.injector, self.config.optimizer.ema_decay, self.step)
        return values

    def validate(
        self, validation: InjectorCubes, stop: StopSignal, plot: bool
    ) -> tuple[float, dict[str, float], dict[str, np.ndarray | None]]:
        """Score the averaged injector by 1 - the mean difference of the hidden middle, as `Run.validate`."""

        def difference(number: int) -> float:
            cube = torch.from_numpy(validation.cube(number)).reshape(1, 1, SIDE, SIDE, SIDE).to(self.device)
            made = self.ema(hide(cube))
            return float((made - cube)[..., HIDDEN, HIDDEN, HIDDEN].abs().mean())

        mean = float(np.mean(map_over_ranks(difference, range(len(validation.crops)), stop)))
        examples = stop.unless_given(lambda: injector_examples(self.ema, validation)) if plot else None
        return 1 - mean, {"difference": mean, "best": max(1 - mean, self.best)}, {"ct-hidden-injected": examples}


def train(config: dict, out: Path, resume: bool = False, device: str = "cpu") -> Path:
    """As `run.train`, for CT-GAN.

    Args:
        config: the configuration as read, with the folder of the data.
        out: folder of the run.
        resume: go on from `last.pt`, if there is one.
        device: "cpu", "auto", "cuda" or "cuda:N".
    """
    return run.train(InjectorRun, build(InjectorConfig, config), out, resume, device)
