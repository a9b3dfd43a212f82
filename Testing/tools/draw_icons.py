"""Draw the extension's icons: an axial chest slice with one nodule in the jet colors of the heterogeneity map.

Run once by hand (`.venv/bin/python Testing/tools/draw_icons.py`); the pictures are committed.
"""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).parents[2]
SIZE, SUPERSAMPLING = 128, 8
TILE, BODY, RIM, LUNG, VESSEL = "#10233a", "#8fa3b5", "#c6d2dc", "#16293f", "#3d5872"
TRAINING_RIM = "#f2b84b"


def canvas() -> tuple[Image.Image, ImageDraw.ImageDraw, float]:
    """Return a transparent supersampled picture, its pen, and the length of one unit (the picture is 100 wide)."""
    pixels = SIZE * SUPERSAMPLING
    image = Image.new("RGBA", (pixels, pixels), (0, 0, 0, 0))
    return image, ImageDraw.Draw(image), pixels / 100


def draw_chest(rim: str) -> Image.Image:
    """Draw the rounded tile, the body, two lungs and a few vessels."""
    image, pen, unit = canvas()

    def box(x0: float, y0: float, x1: float, y1: float) -> list[float]:
        return [x0 * unit, y0 * unit, x1 * unit, y1 * unit]

    pen.rounded_rectangle(box(0, 0, 100, 100), radius=20 * unit, fill=TILE)
    pen.ellipse(box(4, 11, 96, 89), fill=rim)
    pen.ellipse(box(7, 14, 93, 86), fill=BODY)
    pen.polygon([(x * unit, y * unit) for x, y in lung_outline(-1)], fill=LUNG)
    pen.polygon([(x * unit, y * unit) for x, y in lung_outline(+1)], fill=LUNG)
    pen.ellipse(box(44, 64, 56, 77), fill=RIM)
    for side in (-1, 1):
        for angle, reach in ((-62, 19), (-22, 15), (14, 23), (50, 21), (78, 17)):
            start = np.array([50 + side * 13, 50.0])
            turn = np.deg2rad(angle)
            stop = start + reach * np.array([side * np.cos(turn), np.sin(turn)])
            pen.line([tuple(start * unit), tuple(stop * unit)], fill=VESSEL, width=int(1.6 * unit))
    return image


def lung_outline(side: int) -> list[tuple[float, float]]:
    """Return the outline of one lung; `side` is -1 for the picture's left and +1 for its right."""
    turn = np.linspace(0, 2 * np.pi, 240)
    wide = 18.5 * (1 - 0.28 * np.exp(-(((turn - np.pi) % (2 * np.pi) - np.pi) ** 2) / 0.5))
    x = 30 - wide * np.cos(turn + np.pi)
    y = 50 + 29 * np.sin(turn) * (1 + 0.06 * np.cos(turn))
    x = x if side < 0 else 100 - x
    return list(zip(x.tolist(), y.tolist(), strict=True))


def draw_nodule(image: Image.Image, center: tuple[float, float], radius: float) -> None:
    """Paint a lobulated nodule whose smooth random texture is colored with jet."""
    pixels = image.width
    y, x = np.mgrid[:pixels, :pixels] * (100 / pixels)
    dx, dy = x - center[0], y - center[1]
    turn = np.arctan2(dy, dx)
    relative = np.hypot(dx, dy) / (radius * (1 + 0.07 * np.sin(3 * turn + 0.6) + 0.04 * np.sin(7 * turn)))
    noise = gaussian_filter(np.random.default_rng(4).standard_normal((pixels, pixels)), pixels * radius / 430)
    signal = 1.02 - 0.95 * relative**1.4 + 0.16 * noise / noise.std()
    color = (colormaps["jet"](np.clip(signal, 0.04, 0.97)) * 255).astype(np.uint8)
    ring = (relative > 1) & (relative < 1.13)
    color[ring] = 255
    color[..., 3] = np.where(relative < 1.13, 255, 0)
    image.alpha_composite(Image.fromarray(color))


def save(image: Image.Image, path: Path) -> None:
    """Write `image` at its final size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(path, optimize=True)


def main() -> None:
    """Draw the three icons in place."""
    for path, rim in (
        (ROOT / "Resources/LNHG.png", RIM),
        (ROOT / "LNHGSegmentation/Resources/Icons/LNHGSegmentation.png", RIM),
        (ROOT / "LNHGTraining/Resources/Icons/LNHGTraining.png", TRAINING_RIM),
    ):
        image = draw_chest(rim)
        draw_nodule(image, center=(72, 41), radius=12.5)
        save(image, path)


if __name__ == "__main__":
    main()
