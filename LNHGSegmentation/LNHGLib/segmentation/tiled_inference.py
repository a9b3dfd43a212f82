"""Running the two networks over a working grid: in pieces that fit the memory, within the lungs, cancellable.

Arrays are zyx on the working grid; the CT is normalized to 0..1.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from LNHGLib.errors import WorkError
from LNHGLib.image.boxes import Box, box_around_mask, box_start, box_within, grow_box, shift_box
from LNHGLib.segmentation.preprocessing import tiles
from LNHGLib.segmentation.progress import Monitor
from LNHGLib.segmentation.runtime import Network, as_network, suppress_out_of_memory

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]

CPU_BYTES = 2_000_000_000
"""Memory for the feature maps of one piece on the CPU."""
CUDA_FRACTION = 0.4
MIN_TILE_VOXELS = 32**3
MAX_CUTS = 12
CROP_MARGIN = 16
MIN_BOX_LUNG_FRACTION = 0.25
"""A box with a smaller part of its area in the lung is dropped."""
CPU_TOOK_OVER = (
    "The GPU's memory did not suffice, so the CPU took over, which took longer; "
    "close other programs that use the GPU before the next run."
)
BATCH = {"cpu": 4, "cuda": 16}
FIELDS_AT_ONCE = {"cpu": 2, "cuda": 16}
"""Fields of `FIELD_VOXELS` that the generator sees in one batch; of larger ones fewer."""
FIELD_VOXELS = 48**3


def run_generator(
    generator: "Network | nn.Module",
    ct_norm: np.ndarray,
    lungs: np.ndarray | None = None,
    *,
    slab: int | None = None,
    max_voxels: int | None = None,
    monitor: Monitor | None = None,
) -> np.ndarray:
    """Run the generator over the lungs, in pieces with a halo: the same values as over the whole volume.

    Args:
        generator: from `Model.network`, on the device it is to run on.
        ct_norm: float32 zyx, normalized CT.
        lungs: boolean zyx; only pieces with lung are run. None means everywhere.
        slab: slices of one input, where the network was trained on slabs (the paper's 3): slabs follow each other
            without overlap, and the last one is shifted back so that every slice is covered.
        max_voxels: largest piece; None derives it from the memory.
        monitor: progress and cancelling.

    Returns:
        Nodule image G, float32 zyx; 0 in pieces without lung.
    """
    monitor, generator = monitor or Monitor(), as_network(generator)
    result = np.zeros(ct_norm.shape, np.float32)
    todo = np.ones(ct_norm.shape, bool) if lungs is None else lungs.copy()
    if hasattr(generator, "predict_volume") and slab is None and max_voxels is None:
        with suppress_out_of_memory():
            return generator.predict_volume(ct_norm, todo, monitor.check, monitor.report)
    total = max(np.count_nonzero(todo), 1)
    budget = max_voxels or 0
    if not budget:
        with suppress_out_of_memory():
            budget = _voxel_budget(generator)
        if not budget:  # the GPU is too full even for the trial run
            budget = reduce_tile_or_move_to_cpu(generator, MIN_TILE_VOXELS, MIN_TILE_VOXELS, monitor)
    while todo.any():
        with suppress_out_of_memory():
            for target, outer in tiles_with_halo(todo, generator, slab, budget):
                beyond = [(0, max(s.stop - size, 0)) for s, size in zip(outer, ct_norm.shape, strict=True)]
                block = np.ascontiguousarray(np.pad(ct_norm[outer], beyond, mode="edge"), dtype=np.float32)
                values = generator.predict(block[None, None], monitor.check)[0, 0]
                result[target] = values[box_within(target, outer)]
                todo[target] = False
                monitor.report(1 - np.count_nonzero(todo) / total)
        if todo.any():
            budget = reduce_tile_or_move_to_cpu(generator, budget, MIN_TILE_VOXELS, monitor)
    return result


def run_generator_on_fields(
    generator: "Network | nn.Module",
    fields: np.ndarray,
    *,
    slab: int | None = None,
    monitor: Monitor | None = None,
    wanted: Box | None = None,
) -> np.ndarray:
    """Run the generator over each of some small volumes, several at a time.

    Args:
        generator: as `run_generator` takes it.
        fields: normalized CT of each, float32 (n, z, y, x).
        slab: as `run_generator` takes it.
        monitor: cancelling.
        wanted: the part of each volume whose values count; networks that predict slice by slice leave others out.

    Returns:
        Nodule images, float32 (n, z, y, x); they are the same, up to rounding, as one after the other.
    """
    monitor, generator = monitor or Monitor(), as_network(generator)
    result, done = np.zeros(fields.shape, np.float32), 0
    batch = 1 if slab else fields_at_once(generator, fields.shape[1:])
    sides = zip(fields.shape[1:], generator.multiple, strict=True)
    beyond = [(0, 0), *((0, -size % multiple) for size, multiple in sides)]
    while done < len(fields):
        some = fields[done : done + batch]
        values = None
        if not slab:
            block = np.pad(some, beyond, mode="edge")[:, None]
            with suppress_out_of_memory():
                values = generator.predict(block, monitor.check, wanted)
                result[done : done + len(some)] = values[(slice(None), 0, *map(slice, fields.shape[1:]))]
                done += len(some)
        if values is None and len(some) == 1:  # in pieces, where even this one does not fit the memory
            result[done] = run_generator(generator, some[0], slab=slab, monitor=monitor)
            done += 1
        elif values is None:
            batch = reduce_tile_or_move_to_cpu(generator, batch, 1, monitor)
    return result


def fields_at_once(generator: "Network | nn.Module", shape: Shape) -> int:
    """Return how many fields the generator sees in one batch: few, so that memory stays bounded.

    Args:
        generator: on the device it is to run on.
        shape: of each field, zyx.
    """
    most = FIELDS_AT_ONCE["cpu" if as_network(generator).on_cpu else "cuda"]
    return min(most, max(1, most * FIELD_VOXELS // math.prod(shape)))


def run_detector(
    detector: "Network | nn.Module",
    ct_norm: np.ndarray,
    lungs: np.ndarray | None = None,
    *,
    step: int = 1,
    min_score: float = 0.0,
    monitor: Monitor | None = None,
) -> np.ndarray:
    """Run the detector on axial slices with lung; its channels are the slices z - step, z and z + step.

    Every `step`-th slice from the first with lung on is scanned, those without lung are left out.

    Args:
        detector: from `Model.network`; as a module it takes a list of (3, H, W) images, and gives a list of dicts with
            `boxes` (x0, y0, x1, y1) and `scores`.
        ct_norm: float32 zyx, normalized CT.
        lungs: boolean zyx; images are cropped to it and boxes outside are dropped. None means everywhere.
        step: slices between scanned slices.
        min_score: lowest score kept.
        monitor: progress and cancelling.

    Returns:
        (N, 6) rows z, y0, x0, y1, x1, score on the working grid.
    """
    monitor, detector = monitor or Monitor(), as_network(detector)
    lungs = np.ones(ct_norm.shape, bool) if lungs is None else lungs
    todo = scanned_slices(lungs, step)
    total, rows, batch, following = len(todo), [], BATCH["cpu" if detector.on_cpu else "cuda"], None
    while todo:
        found = None
        with suppress_out_of_memory():
            images, corners = following or _lung_crops(ct_norm, lungs, todo[:batch], step)
            following = _lung_crops(ct_norm, lungs, todo[batch : 2 * batch], step)
            found = detector.detect(images, monitor.check, following[0])
        if found is None:
            following = None
            batch = reduce_tile_or_move_to_cpu(detector, batch, 1, monitor)
            continue
        for z, (top, left), boxes in zip(todo[:batch], corners, found, strict=True):
            for x0, y0, x1, y1, score in boxes.astype(float):
                edges = y0 + top, x0 + left, y1 + top, x1 + left
                low, high = np.floor(edges[:2]).astype(int), np.ceil(edges[2:]).astype(int)
                inside = lungs[z, max(low[0], 0) : high[0], max(low[1], 0) : high[1]]
                if score >= min_score and inside.size and inside.mean() >= MIN_BOX_LUNG_FRACTION:
                    rows.append((z, *edges, score))
        todo = todo[batch:]
        monitor.report(1 - len(todo) / total)
    detector.release()
    return np.array(rows, float).reshape(-1, 6)


def scanned_slices(lungs: np.ndarray, step: int) -> list[int]:
    """Return the slices that the detector sees: those with lung of every `step`-th one from the first with lung on.

    Args:
        lungs: boolean zyx.
        step: slices between scanned slices.
    """
    with_lung = np.flatnonzero(lungs.any(axis=(1, 2)))
    return [int(z) for z in with_lung if (z - with_lung[0]) % step == 0]


def tiles_with_halo(todo: np.ndarray, generator: Network, slab: int | None, budget: int) -> Iterator[tuple[Box, Box]]:
    """Yield what is to be run: targets that hold all of `todo`, and what the network has to see for each.

    A target is the part of a tile around what is to do in it; a slab keeps its slices. What the network sees begins and
    ends at multiples of its stride, counted from the volume's first voxel, and may reach beyond the volume's far ends.

    Args:
        todo: bool (z, y, x).
        generator: with `halo` and `multiple`.
        slab: slices of one input, None for any number.
        budget: largest piece in voxels.
    """
    shape, halo, multiples = todo.shape, list(generator.halo), generator.multiple
    if slab:
        halo[0] = 0
    for tile in tiles(shape, plan_tiles(shape, halo, multiples, slab, budget), (0, 0, 0)):
        around = box_around_mask(todo[tile.target])
        if around is None:
            continue
        target = shift_box(around, box_start(tile.target))
        outer = []
        for part, size, reach, multiple in zip(target, shape, halo, multiples, strict=True):
            start = max(part.start - reach, 0) // multiple * multiple
            stop = min(math.ceil((part.stop + reach) / multiple), math.ceil(size / multiple)) * multiple
            outer.append(slice(start, stop))
        if slab:
            target = (tile.target[0], *target[1:])
            start = max(min(target[0].start, shape[0] - slab), 0)
            outer[0] = slice(start, start + slab)
        yield target, tuple(outer)


def plan_tiles(shape: Shape, halo: list[int], multiples: Shape, slab: int | None, budget: int) -> Shape:
    """Return the size of the equal tiles that compute least voxels, halos included, none larger than the budget.

    Where every tile is larger, the largest of the tiles that compute least.

    Args:
        shape: of the volume, zyx.
        halo: reach of the receptive field, zyx.
        multiples: of which a network's sides must be multiples, zyx.
        slab: slices of one input, None for any number.
        budget: largest piece in voxels.
    """
    choices = []
    for axis, (size, multiple) in enumerate(zip(shape, multiples, strict=True)):
        cores = [slab] if slab and axis == 0 else sorted({math.ceil(size / n) for n in range(1, MAX_CUTS + 1)})
        full = math.ceil(size / multiple) * multiple
        reach = 2 * (halo[axis] + multiple - 1)
        choices.append([(core, math.ceil(size / core), min(core + reach, full)) for core in cores])
    plans = []
    for z, y, x in product(*choices):
        voxels = z[2] * y[2] * x[2]
        cost = voxels * z[1] * y[1] * x[1] if voxels <= budget else voxels
        plans.append((voxels > budget, cost, -z[0] * y[0] * x[0], (z[0], y[0], x[0])))
    return min(plans)[3]


def _voxel_budget(network: Network) -> int:
    """Voxels of a piece whose feature maps fit the memory."""
    memory = CPU_BYTES if network.on_cpu else network.free_gpu_bytes() * CUDA_FRACTION
    return max(MIN_TILE_VOXELS, int(memory / (4 * network.live_maps * network.widest())))


def reduce_tile_or_move_to_cpu(network: Network, size: int, least: int, monitor: Monitor) -> int:
    """Return half the size after the device ran out of memory, or move to the CPU when the size is already the least.

    Args:
        network: moved to the CPU where nothing smaller is left.
        size: of a piece or a batch that did not fit.
        least: the smallest that makes sense.
        monitor: takes the warning.

    Raises:
        WorkError: the CPU itself has too little memory for the least.
    """
    network.release()
    if size > least:
        owner = "computer" if network.on_cpu else "GPU"
        monitor.warn(
            f"The {owner}'s memory was short: smaller pieces were computed, which took longer.", "small pieces"
        )
        return max(size // 2, least)
    if network.on_cpu:
        raise WorkError(
            "The computer's memory does not suffice for the smallest piece of work; close other programs and try again."
        )
    monitor.warn(CPU_TOOK_OVER, "on the CPU")
    network.move_to_cpu()
    return _voxel_budget(network) if least == MIN_TILE_VOXELS else BATCH["cpu"]


def _lung_crops(
    ct_norm: np.ndarray, lungs: np.ndarray, slices: list[int], step: int
) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Images (3, H, W) of slices, cropped to the lungs with a margin, and the row and column where each begins."""
    images, corners = [], []
    for z in slices:
        around = [max(z - step, 0), z, min(z + step, len(ct_norm) - 1)]
        _, rows, columns = grow_box(box_around_mask(lungs[around]), (0, CROP_MARGIN, CROP_MARGIN), lungs[around].shape)
        images.append(np.ascontiguousarray(ct_norm[around, rows, columns], dtype=np.float32))
        corners.append((rows.start, columns.start))
    return images, corners
