"""nnU-Net's own trainer within a stated budget.

nnU-Net itself imports this file, in a child process and from the folder that `nnUNet_extTrainer` names.
"""

import json
import os
import random
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from safetensors.torch import save_model

SETTINGS = "LNHG_NNUNET"
"""Environment variable with epochs, iterations, seed, where to write the network, and what to say about it."""


class BudgetTrainer(nnUNetTrainer):
    """As many epochs and iterations as asked for, seeded; writes a checkpoint each epoch, the network as safetensors.

    Nothing else of nnU-Net's recipe is changed. Parameters are those of nnU-Net, which calls it.
    """

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device | str = "cuda"
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.settings = json.loads(os.environ[SETTINGS])
        self.num_epochs, self.num_iterations_per_epoch = self.settings["epochs"], self.settings["iterations"]
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)  # nnU-Net's own fraction
        self.save_every = 1
        if "OMP_NUM_THREADS" in os.environ:  # nnU-Net takes all cores
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.set_flush_denormal(True)
        self._seed()

    def _seed(self) -> None:
        """Seed an epoch as if all before it had been sampled in this process: a resumed run is the same run."""
        seed = 1_000_003 * self.settings["seed"] + self.current_epoch
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - nnU-Net samples from it
        torch.manual_seed(seed)

    def on_epoch_start(self) -> None:
        """Begin an epoch."""
        self._seed()
        super().on_epoch_start()

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint whole or not at all."""
        super().save_checkpoint(f"{filename}.part")
        Path(f"{filename}.part").replace(filename)

    def on_train_end(self) -> None:
        """Write the network as safetensors, with all that is needed to use it."""
        super().on_train_end()
        about = self.settings["about"] | {
            "plans": self.plans_manager.plans,
            "dataset": self.dataset_json,
            "mirrored_axes": self.inference_allowed_mirroring_axes,
        }
        path = self.settings["weights"]
        network = getattr(self.network, "_orig_mod", self.network)  # of a compiled one
        save_model(network.cpu(), f"{path}.part", {"nnunet": json.dumps(about)})
        Path(f"{path}.part").replace(path)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: `lnhg-train crossvalidate` scores the held-out crops, as those of every method."""
