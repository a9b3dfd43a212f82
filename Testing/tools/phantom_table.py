"""Measure lungs on the 1 mm grid, identically on real scans and on the synthetic chest.

`python Testing/tools/phantom_table.py scans/lidc_scans.h5` measures the seven real scans and writes the range of each
value to Testing/data/phantom_ranges.json; nothing else of the scans is kept. With and without scans, it then measures
the chest that the demo draws, without its nodules, and writes the table of docs/phantom.md.
"""

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "LNHGSegmentation"))

from LNHGLib.files.text import markdown_table, write_json  # noqa: E402
from LNHGLib.image.boxes import box_around_mask  # noqa: E402
from LNHGLib.image.volume import Volume, canonical, resample  # noqa: E402
from LNHGLib.measurement.location import distance_mm  # noqa: E402
from LNHGLib.models.card import GridSpec  # noqa: E402
from LNHGLib.segmentation.preprocessing import find_lungs, onto_grid, working_grid  # noqa: E402

RANGES = ROOT / "Testing" / "data" / "phantom_ranges.json"
PAGE = ROOT / "docs" / "phantom.md"
BEGIN, END = "<!-- phantom: written by Testing/tools/phantom_table.py -->\n", "<!-- end of phantom -->\n"

VESSEL_HU = -600
STEP_HU = 8
"""HU of the real scans are multiples of it."""
RIM_MM = 5.0
"""Of the search region, which reaches beyond the pleura."""
BODY_RADIUS_MM = 7.0
"""What holds a ball of this radius is mediastinum, wall or mass; lung closer to it than this and 3 mm is left out."""
COARSE = 3
"""Voxels of a block, for what needs no detail."""
DIAMETERS_MM = (2.5, 3.5, 5.0, 8.0)
MIN_PIECE_MM3 = 14


def measure(ct: np.ndarray, lungs: np.ndarray) -> dict[str, float]:
    """Measure a chest CT within the lungs.

    Args:
        ct: HU (z, y, x) at 1 mm.
        lungs: the search region, bool (z, y, x).

    Returns:
        Values by name, in the order of the table.
    """
    box = tuple(slice(s.start, s.start + (s.stop - s.start) // COARSE * COARSE) for s in box_around_mask(lungs))
    ct = np.round(ct[box] / STEP_HU) * np.float32(STEP_HU)
    tissue = ct > VESSEL_HU
    bodies = _depth_mm(tissue) > BODY_RADIUS_MM
    lung = (_depth_mm(lungs[box]) > RIM_MM) & (distance_mm(bodies, (COARSE,) * 3) > BODY_RADIUS_MM + COARSE)
    for axis in range(3):
        lung = lung.repeat(COARSE, axis)
    liters = lung.sum() / 1e6
    away = lung & (ndimage.gaussian_filter(tissue.astype(np.float32), 2.0) < 0.01)
    values = {"lung measured, liters": liters} | _density(ct, lung) | _noise(ct, away)
    return values | {"volume above -600 HU, %": float(100 * tissue[lung].mean())} | _vessels(tissue & lung, liters)


def measure_volume(volume: Volume) -> dict[str, float]:
    """Measure a CT that is brought to the 1 mm grid as the bundled model does.

    Args:
        volume: HU of the whole chest.
    """
    upright = canonical(volume)
    lungs = find_lungs(upright)
    grid = working_grid(upright, lungs, GridSpec(kind="spacing", spacing_mm=(1.0, 1.0, 1.0)))
    inside = resample(lungs.view(np.uint8), upright.grid, grid, linear=False, fill=0) > 0
    return measure(onto_grid(upright, grid), inside)


def measure_scans(path: Path) -> dict[str, tuple[float, float]]:
    """Return the least and the greatest of each value.

    Args:
        path: HDF5 file with a group per scan: `ct` int16 HU (z, y, x) at 1 mm, `lungs` uint8.
    """
    import h5py

    with h5py.File(path) as file:
        rows = [measure(scan["ct"][:].astype(np.float32), scan["lungs"][:] > 0) for scan in file.values()]
    return {name: (min(row[name] for row in rows), max(row[name] for row in rows)) for name in rows[0]}


def read_ranges() -> dict[str, tuple[float, float]]:
    """Return the least and the greatest of each value of the seven scans, as committed."""
    return {name: tuple(ends) for name, ends in json.loads(RANGES.read_text()).items()}


def with_table(page: str, values: dict[str, float], ranges: dict[str, tuple[float, float]]) -> str:
    """Return the page with its table written anew.

    Args:
        page: Text that holds both marks.
        values: Of the synthetic chest.
        ranges: Of the real scans.
    """
    rows = []
    for name, value in values.items():
        digits = 2 if max(map(abs, ranges[name])) < 20 else 0
        rows.append([name, *(f"{number:.{digits}f}" for number in (*ranges[name], value))])
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    table = markdown_table(["Within the lungs, at 1 mm", "seven scans, least", "greatest", "synthetic chest"], rows)
    return f"{before}{BEGIN}\n{table}\n{end}{after}"


def _depth_mm(mask: np.ndarray) -> np.ndarray:
    """Return the distance from each block of voxels to the nearest that is not mostly in the mask, in mm."""
    blocks = mask.reshape([part for size in mask.shape for part in (size // COARSE, COARSE)])
    inside = np.pad(blocks.mean(axis=(1, 3, 5), dtype=np.float32) >= 0.5, 1)
    return distance_mm(~inside, (COARSE,) * 3)[1:-1, 1:-1, 1:-1]


def _density(ct: np.ndarray, lung: np.ndarray) -> dict[str, float]:
    """Return the HU of the lungs without their vessels, and how they rise from front to back."""
    where = lung & (ct < VESSEL_HU)
    hu, back_cm = ct[where], np.nonzero(where)[1] / 10
    names = {"5th percentile": 5, "median": 50, "95th percentile": 95}
    values = {"HU of the lung, mean": float(hu.mean())}
    values |= {f"HU of the lung, {name}": float(np.percentile(hu, part)) for name, part in names.items()}
    return values | {"HU of the lung, rise per cm to the back": float(np.polyfit(back_cm[::7], hu[::7], 1)[0])}


def _noise(ct: np.ndarray, away: np.ndarray) -> dict[str, float]:
    """Return the standard deviation of what remains of the lung without its smooth part, and how it is correlated.

    Args:
        ct: HU (z, y, x).
        away: the lung away from vessels, bool.
    """
    rest = ct - ndimage.gaussian_filter(ct, 2.0)
    values = {"noise, HU (standard deviation)": float(rest[away].std())}
    for name, axis in (("in the slice", 2), ("across slices", 0)):
        noise, valid = (np.moveaxis(part, axis, 0) for part in (rest, away))
        pairs = valid[1:] & valid[:-1]
        correlation = np.corrcoef(noise[1:][pairs], noise[:-1][pairs])[0, 1]
        values[f"noise, correlation over 1 mm {name}"] = float(correlation)
    return values


def _vessels(vessels: np.ndarray, liters: float) -> dict[str, float]:
    """Return the length of the vessels' center lines by diameter, their branch points and their pieces, per liter.

    Args:
        vessels: bool (z, y, x) at 1 mm.
        liters: the lung's volume.
    """
    from skimage.morphology import skeletonize

    everywhere = np.ones((3, 3, 3), np.uint8)
    skeleton = skeletonize(vessels)
    points = np.argwhere(skeleton)
    neighbors = cKDTree(points).query_pairs(1.8, output_type="ndarray")
    mm_of_point = np.linalg.norm(points[neighbors[:, 0]] - points[neighbors[:, 1]], axis=1).sum() / len(points)
    diameters = 2 * distance_mm(~vessels, (1.0, 1.0, 1.0))[skeleton] - 1
    counts = np.histogram(diameters, (0, *DIAMETERS_MM, np.inf))[0]
    names = [f"below {DIAMETERS_MM[0]}", *(f"{low} to {high}" for low, high in pairwise(DIAMETERS_MM))]
    meters = counts * mm_of_point / 1000 / liters
    values = {
        f"vessels {name} mm thick, m per liter": float(length)
        for name, length in zip([*names, f"from {DIAMETERS_MM[-1]}"], meters, strict=True)
    }
    around = ndimage.convolve(skeleton.astype(np.uint8), everywhere, mode="constant") - 1
    sizes = np.bincount(ndimage.label(vessels, everywhere)[0].ravel())[1:]
    return values | {
        "branch points per liter": ndimage.label(skeleton & (around > 2), everywhere)[1] / liters,
        "separate pieces per liter": int((sizes >= MIN_PIECE_MM3).sum()) / liters,
    }


def main() -> None:
    """Write the ranges and the table."""
    from LNHGLib.phantom.chest import make_phantom

    parser = argparse.ArgumentParser(description="Write the table that compares the synthetic chest with real scans.")
    parser.add_argument("scans", nargs="?", type=Path, help="lidc_scans.h5; without it the committed ranges stay")
    scans = parser.parse_args().scans
    if scans:
        write_json(RANGES, measure_scans(scans))
    values, ranges = measure_volume(make_phantom(nodules=()).volume), read_ranges()
    PAGE.write_text(with_table(PAGE.read_text(), values, ranges))
    for name, value in values.items():
        low, high = ranges[name]
        print(f"{name:<44} {low:9.3f} {high:9.3f} {value:9.3f}{'' if low <= value <= high else '  outside'}")


if __name__ == "__main__":
    main()
