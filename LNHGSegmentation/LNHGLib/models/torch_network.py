"""A network of torch behind the door that `segmentation` runs every network through; OpenVINO's is beside it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from LNHGLib.image.boxes import Box

TRIAL_SIDE = 16


class TorchNetwork:
    """A module on the device that it is to run on: NumPy arrays in, NumPy arrays out.

    Attributes:
        halo: of a generator, reach of its receptive field, zyx.
        multiple: of a generator, of which the sides of its input must be multiples, zyx.
        slab: of a generator, the slices of one input where it knows no other number.
        live_maps: feature maps of the widest layer that live at the same time, with the copies that convolutions make.
    """

    live_maps = 7

    def __init__(self, module: nn.Module) -> None:
        """Take a module, evaluated.

        Args:
            module: a generator with `halo` and `multiple`, the detector, or a classifier.
        """
        self.module = module
        multiple = getattr(module, "multiple", 1)
        self.halo = getattr(module, "halo", (0, 0, 0))
        self.multiple = (multiple,) * 3 if isinstance(multiple, int) else multiple
        self.slab = getattr(module, "input_slices", None)

    @property
    def on_cpu(self) -> bool:
        """Whether it runs on the CPU."""
        return self._device().type == "cpu"

    def predict(self, block: np.ndarray, check: Callable[[], None], wanted: Box | None = None) -> np.ndarray:
        """Return what the network makes of a batch, float32.

        Args:
            block: float32 (B, 1, D, H, W).
            check: called at every layer; what it raises stops the work.
            wanted: the part of each whose values count; what lies beyond need not be right.
        """
        with torch.inference_mode(), self._stoppable(check):
            return self.module(torch.from_numpy(block).to(self._device())).float().cpu().numpy()

    def detect(
        self, images: Sequence[np.ndarray], check: Callable[[], None], _following: Sequence[np.ndarray] = ()
    ) -> list[np.ndarray]:
        """Return the detector's boxes on each image, (n, 5) rows x0, y0, x1, y1, score.

        Args:
            images: float32 (3, H, W) each.
            check: as `predict` takes it.
        """
        joined = torch.from_numpy(np.concatenate([image.ravel() for image in images]))
        parts = joined.to(self._device()).split([image.size for image in images])  # one copy each way
        with torch.inference_mode(), self._stoppable(check):
            outputs = self.module([part.view(image.shape) for part, image in zip(parts, images, strict=True)])
        both = [torch.cat([one["boxes"].reshape(-1, 4), one["scores"].reshape(-1, 1)], dim=1) for one in outputs]
        found = torch.cat(both).float().cpu().numpy()
        return np.split(found, np.cumsum([len(rows) for rows in both])[:-1])

    def widest(self) -> float:
        """Return the values per voxel of a generator's widest layer, its own word or seen in a small trial run."""
        if getattr(self.module, "values_per_voxel", None):
            return self.module.values_per_voxel
        side = max(TRIAL_SIDE, *self.multiple)
        seen = [1.0]

        def note(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            seen.append(output.numel() / side**3)

        with self._hooked(lambda module: module.register_forward_hook(note)), torch.inference_mode():
            self.module(torch.zeros(1, 1, side, side, side, device=self._device()))
        return max(seen)

    def free_gpu_bytes(self) -> int:
        """Return the memory that is free on its GPU."""
        return torch.cuda.mem_get_info(self._device())[0]

    def move_to_cpu(self) -> None:
        """Run on the CPU from now on."""
        self.module.to("cpu")

    def release(self) -> None:
        """Give memory back that is kept for the next piece."""
        torch.cuda.empty_cache()

    def _device(self) -> torch.device:
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @contextmanager
    def _hooked(self, hook: Callable) -> Iterator[None]:
        handles = [hook(module) for module in self.module.modules() if not any(module.children())]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _stoppable(self, check: Callable[[], None]) -> Iterator[None]:
        """Ask for the user's wish to stop at every layer: a piece as a whole may take longer than a user waits."""
        return self._hooked(lambda module: module.register_forward_pre_hook(lambda *_: check()))
