"""Draw the picture of the synthetic chest in Slicer's Sample Data.

Run once by hand (`.venv/bin/python Testing/tools/draw_thumbnail.py`); the picture is committed.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
OUT = ROOT / "LNHGSegmentation" / "Resources" / "Thumbnails" / "LNHGPhantom.png"
SIZE = (280, 260)
WINDOW_HU = (-1350.0, 150.0)
SLAB_MM = 8.0
PIXEL_MM = 310 / SIZE[0]
"""The chest just fills the width."""


def main() -> None:
    """Write the thumbnail: an axial slab through the largest nodule, in the lung window."""
    sys.path.insert(0, str(ROOT / "LNHGSegmentation"))
    from LNHGLib.image.volume import Grid, resample
    from LNHGLib.phantom.chest import make_phantom

    phantom = make_phantom()
    grid, nodule = phantom.volume.grid, max(phantom.nodules, key=lambda nodule: nodule["diameter_mm"])
    middle = grid.index_to_lps((np.array(grid.shape) - 1) / 2)
    slices = round(SLAB_MM / grid.spacing_mm[0])
    x, y = (middle[axis] - PIXEL_MM * (size - 1) / 2 for axis, size in enumerate(SIZE))
    z = nodule["center_lps_mm"][2] - SLAB_MM / 2
    target = Grid.aligned((slices, SIZE[1], SIZE[0]), (grid.spacing_mm[0], PIXEL_MM, PIXEL_MM), (x, y, z))
    slab = resample(phantom.volume.array, grid, target, fill=-1000.0).max(0)
    low, high = WINDOW_HU
    picture = np.clip(255 * (slab - low) / (high - low), 0, 255).astype(np.uint8)
    OUT.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
