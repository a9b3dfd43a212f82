"""Pictures side by side, with captions, direction letters and scale bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, TEXT, DIM, OUTLINE = (15, 18, 22), (236, 239, 243), (152, 162, 176), (0, 0, 0)
MARGIN, GAP, CAPTION, TITLE, NOTE = 22, 14, 34, 52, 24
BAR_MM = 20
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a composition.

    Attributes:
        picture: (height, width, 3) uint8 RGB.
        caption: stands above the picture.
        directions: where the patient's sides lie: letters at the picture's left, right, top and bottom edge.
        mm_per_pixel: draws a scale bar where given.
    """

    picture: np.ndarray
    caption: str
    directions: str = ""
    mm_per_pixel: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height in pixels, with the caption."""
        return self.picture.shape[1], self.picture.shape[0] + CAPTION * bool(self.caption)

    def paint(self, canvas: Image.Image, left: int, top: int) -> None:
        """Paint caption, picture and marks with their upper left corner at (left, top)."""
        draw = ImageDraw.Draw(canvas)
        draw.text((left, top + CAPTION - 9), self.caption, TEXT, font(17), anchor="ls")
        top += CAPTION * bool(self.caption)
        canvas.paste(Image.fromarray(self.picture), (left, top))
        self._write_directions(draw, left, top)
        if self.mm_per_pixel:
            self._draw_scale_bar(draw, left, top)

    def _write_directions(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        height, width = self.picture.shape[:2]
        places = ((8, height / 2), (width - 8, height / 2), (width / 2, 8), (width / 2, height - 8))
        for letter, (x, y), anchor in zip(self.directions, places, ("lm", "rm", "mt", "mb"), strict=False):
            _write(draw, (left + x, top + y), letter, 18, anchor)

    def _draw_scale_bar(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        x, y, length = left + 16, top + self.picture.shape[0] - 16, BAR_MM / self.mm_per_pixel
        draw.rectangle((x - 1, y - 4, x + length + 1, y + 1), OUTLINE)
        draw.rectangle((x, y - 3, x + length, y), TEXT)
        _write(draw, (x + length / 2, y - 8), f"{BAR_MM} mm", 14, "mb")


def tile(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Put rows of panels under each other; those of a row stand side by side on one top line."""
    widths = [sum(panel.size[0] for panel in row) + GAP * (len(row) - 1) for row in rows]
    heights = [max(panel.size[1] for panel in row) for row in rows]
    canvas, top = Image.new("RGB", (max(widths), sum(heights)), BACKGROUND), 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for panel in row:
            panel.paint(canvas, left, top)
            left += panel.size[0] + GAP
        top += height
    return canvas


def compose(title: str, rows: Sequence[Sequence[Panel]], notes: Sequence[str]) -> Image.Image:
    """Tile panels under a title; notes are lines of small print below them."""
    tiles = tile(rows)
    bottom = TITLE + tiles.height + GAP
    canvas = Image.new("RGB", (tiles.width + 2 * MARGIN, bottom + NOTE * len(notes) + GAP), BACKGROUND)
    canvas.paste(tiles, (MARGIN, TITLE))
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, TITLE - 12), title, TEXT, font(24, "Bold"), anchor="ls")
    for index, note in enumerate(notes):
        draw.text((MARGIN, bottom + NOTE * index), note, DIM, font(14), anchor="lt")
    return canvas


def font(size: int, weight: str = "") -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which is there wherever the tests run."""
    return ImageFont.truetype(FONTS / f"DejaVuSans{'-' * bool(weight)}{weight}.ttf", size)


def _write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, anchor: str) -> None:
    """Write on a picture: dark edges keep the text readable on bright tissue."""
    draw.text(place, text, TEXT, font(size, "Bold"), anchor=anchor, stroke_width=2, stroke_fill=OUTLINE)
