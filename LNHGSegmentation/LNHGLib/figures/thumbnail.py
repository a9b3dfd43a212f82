"""A small picture of a result for overviews: the axial slice of the finding with the highest score."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from LNHGLib.figures.axial_plane import full_plane, sample_ct
from LNHGLib.figures.segment_style import segment_color

if TYPE_CHECKING:
    from LNHGLib.segmentation.pipeline import Result

PIXELS = 128
QUALITY = 80
FRAME_MARGIN_MM = 4.0


def make_thumbnail(result: "Result") -> str:
    """Show the slice through the best finding, framed; the middle slice where nothing was found.

    Returns:
        A JPEG of `PIXELS` on a side, base64.
    """
    grid = result.volume.grid
    best = max(result.nodules, key=lambda nodule: nodule.score, default=None)
    low, high = (
        np.array(best.box_lps_mm, float) if best else np.array([grid.index_to_lps((np.array(grid.shape) - 1) / 2)] * 2)
    )
    plane = full_plane(grid, (low + high) / 2)
    image = Image.fromarray(sample_ct(result.volume, plane.grid())[0])
    image = image.resize((PIXELS, PIXELS), Image.Resampling.BOX).convert("RGB")
    if best:
        left, _, _, top = plane.extent
        scale = PIXELS / plane.field_mm
        corners = (
            (low[:2] - FRAME_MARGIN_MM - (left, top)) * scale,
            (high[:2] + FRAME_MARGIN_MM - (left, top)) * scale,
        )
        color = tuple(round(255 * channel) for channel in segment_color(best.number))
        ImageDraw.Draw(image).rectangle([float(v) for corner in corners for v in corner], outline=color)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode()
