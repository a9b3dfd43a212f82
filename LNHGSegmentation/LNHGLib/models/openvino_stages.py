"""The strided generator over a whole volume, level by level, so that each voxel of each level is computed about once.

A piece that holds the halo of the whole network is mostly halo. Here a piece is of one level only and needs the halo of
two or three convolutions; what the next level needs of it is kept. The four graphs of `openvino_graph.build_stages`:

1. encode: half the resolution, from the CT.
2. context: what both coarser levels make of that, at a quarter of the resolution, for a chunk of slices at once.
3. decode: half the resolution again.
4. draw: the nodule image.

Pieces are counted in cells of 4 x 4 x 4 voxels of the CT, which are 2 x 2 x 2 at half and 1 at a quarter of the
resolution. Arrays are (D, H, W, C).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from LNHGLib.image.boxes import Box, box_within

CELL = 4
SIDE = 32
"""Cells along each axis of a piece at the most."""
HALO = 1
"""Cells that a piece sees around what it is for."""
REACH = 8
"""Cells that the whole network sees around a voxel; even, as all of a chunk's sides, so that levels fit."""
CHUNK_BYTES = 500_000_000
"""Of what is kept of a chunk of slices, at the most."""
CELL_VALUES = 500
"""Kept of a cell at the most."""


@dataclass(frozen=True)
class Stage:
    """A graph that makes one array (1, D, H, W, C) of several; each change of shape costs time.

    Attributes:
        start: begins; what it returns waits for the array, which is valid until the start after the next.
        release: stops what runs, and gives the memory of the layers back.
    """

    start: Callable[[Sequence[np.ndarray]], Callable[[], np.ndarray]]
    release: Callable[[], None]


def predict_volume(
    stages: Sequence[Stage],
    ct_norm: np.ndarray,
    wanted: np.ndarray,
    report: Callable[[float], None],
    between: type[np.floating] = np.float32,
) -> np.ndarray:
    """Return the nodule image, float32 (z, y, x), 0 in pieces without anything wanted.

    Args:
        stages: the four.
        ct_norm: normalized CT, float32 (z, y, x).
        wanted: bool (z, y, x).
        report: called with the fraction done.
        between: type of what one stage hands to another.
    """
    encode, context, decode, draw = stages
    cells = wanted
    for axis, size in enumerate(wanted.shape):
        cells = np.logical_or.reduceat(cells, np.arange(0, size, CELL), axis)
    cells = np.pad(cells, [(0, size % 2) for size in cells.shape])  # so that levels fit
    most = CHUNK_BYTES // (CELL_VALUES * np.dtype(between).itemsize * cells[0].size)
    most = max(most - 2 * REACH, 2)
    depth = -(-len(cells) // -(-len(cells) // most) // 2) * 2
    seen = min(depth + 2 * REACH, len(cells))
    sides = {reach: [_side(_within(cells, reach).any(axis)) for axis in ((0, 2), (0, 1))] for reach in (0, HALO, REACH)}
    image, encoded, known, before = np.zeros(ct_norm.shape, np.float32), None, np.zeros_like(cells), 0
    for start in range(0, len(cells), depth):
        first = min(max(start - REACH, 0), len(cells) - seen)
        stop = first + seen
        own = np.zeros_like(cells[first:stop])
        own[start - first : start + depth - first] = cells[start : start + depth]
        if not own.any():
            continue
        spans = [
            lambda done, start=start, low=low, share=share: report((start + (low + share * done) * depth) / len(cells))
            for low, share in ((0.0, 0.4), (0.5, 0.1), (0.6, 0.4))
        ]
        part = ct_norm[CELL * first : CELL * stop, ..., None]
        todo = _within(own, REACH) & ~known[first:stop]
        if encoded is not None:  # its memory is used again
            kept = len(encoded) - 2 * (first - before)
            for z in range(kept):
                encoded[z] = encoded[len(encoded) - kept + z]
            encoded[kept:] = 0
        encoded, before = _sweep(encode, {CELL: part}, todo, sides[REACH], spans[0], encoded), first
        known[first:stop] |= todo
        if stop < len(cells):
            known[stop - HALO : stop] = False  # seen with nothing behind them
        around = context.start([encoded[None]])()[0].copy()
        context.release()
        decoded = _sweep(decode, {2: encoded, 1: around}, _within(own, HALO), sides[HALO], spans[1])
        del around
        drawn = _sweep(draw, {CELL: part, 2: decoded}, own, sides[0], spans[2])
        del decoded
        target = image[CELL * start : CELL * (start + depth)]
        target[:] = drawn[CELL * (start - first) :][tuple(map(slice, target.shape))][..., 0]
        del drawn
    return image


def _sweep(
    stage: Stage,
    arrays: Mapping[int, np.ndarray],
    wanted: np.ndarray,
    sides: Sequence[int],
    report: Callable[[float], None],
    result: np.ndarray | None = None,
) -> np.ndarray:
    """Return what a stage makes of arrays in pieces with something wanted.

    Args:
        stage: what runs.
        arrays: by the number of their voxels along a cell; their outermost values go on.
        wanted: cells.
        sides: of each piece along y and x, in cells.
        report: called with the fraction done.
        result: takes what is made; None makes an array of zeros for it.
    """
    along_z = wanted.any(axis=(1, 2))
    pieces = [  # what each sees and what of it counts
        ((seen_z, seen_y, seen_x), (z, y, x))
        for seen_z, z in _spans(along_z, _side(along_z))
        for seen_y, y in _spans(wanted[z].any(axis=(0, 2)), sides[0])
        for seen_x, x in _spans(wanted[z, y].any(axis=(0, 1)), sides[1])
    ]

    def cut(array: np.ndarray, box: Box) -> np.ndarray:
        inside = array[box]
        beyond = [(0, part.stop - part.start - size) for part, size in zip(box, inside.shape, strict=False)]
        return np.pad(inside, [*beyond, (0, 0)], mode="edge") if np.any(beyond) else inside

    begin = (stage.start([cut(array, _voxels(seen, n))[None] for n, array in arrays.items()]) for seen, _ in pieces)
    try:
        coming = next(begin, None)
        for done, (seen, target) in enumerate(pieces):
            report(done / len(pieces))
            wait, coming = coming, next(begin, None)  # computes while this one is put away
            (values,) = wait()
            across = len(values) // (seen[0].stop - seen[0].start)
            if result is None:
                result = np.zeros((*(across * size for size in wanted.shape), values.shape[-1]), values.dtype)
            result[_voxels(target, across)] = values[_voxels(box_within(target, seen), across)]
    finally:
        stage.release()
    return result


def _side(wanted: np.ndarray) -> int:
    """Return how many cells pieces see along an axis, if as few as possible see all that is wanted and its halo."""
    first, last = wanted.argmax(), len(wanted) - wanted[::-1].argmax()
    length = min(last + HALO, len(wanted)) - max(first - HALO, 0)
    number = max(-(-(length - 2 * HALO) // (SIDE - 2 * HALO)), 1)
    return -(-(length + 2 * HALO * (number - 1)) // number)


def _spans(wanted: np.ndarray, length: int) -> Iterator[tuple[slice, slice]]:
    """Yield what a piece of a length sees and what of it counts along one axis, gaps left out."""
    position = 0
    while wanted[position:].any():
        position += int(wanted[position:].argmax())
        start = min(max(position - HALO, 0), len(wanted) - length)
        end = start + length if start + length == len(wanted) else start + length - HALO
        yield slice(start, start + length), slice(position, end)
        position = end


def _voxels(box: Box, across: int) -> Box:
    """Return the box of voxels, so many along a cell."""
    return tuple(slice(across * part.start, across * part.stop) for part in box)


def _within(cells: np.ndarray, reach: int) -> np.ndarray:
    """Return the cells that are at most so far from a true one along each axis."""
    return ndimage.maximum_filter(cells, 2 * reach + 1, mode="constant")
