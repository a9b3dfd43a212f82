"""The pictures of a reader study: the same plane, crop, zoom and window with and without the heterogeneity map.

Radiological convention: the patient's right is on the left, anterior is up. Of the input only voxels get in.
"""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from LNHGLib.errors import InputError
from LNHGLib.figures import colors
from LNHGLib.figures.axial_plane import AxialPlane, sample_ct, sample_nodule
from LNHGLib.image.volume import Volume
from LNHGLib.reader_study.scores import CT, CT_MAP

LAYOUTS = ("slice", "strip", "stack")
PANEL_PX = {"slice": 640, "strip": 400, "stack": 640}
FIELD_MM = 60.0
MAX_FIELD_FRACTION = 2 / 3  # of the field that a nodule fills, before the field grows
STRIP_FRACTION = 1 / 4  # of the nodule's height, from its middle to the outer slices of a strip
STACK_MARGIN_MM = 6.0
MAX_SLICES = 61
PNG_LEVEL = 3  # higher ones take many times as long for pictures little smaller

GAP_PX, LEGEND_PX = 6, 132
TEXT_PX, SMALL_PX = 17, 14
BLACK, WHITE, GRAY = (0, 0, 0), (236, 236, 236), (156, 156, 156)
load_font = cache(ImageFont.load_default)


@dataclass(frozen=True)
class RenderStyle:
    """What all pictures of a study share.

    Attributes:
        layout: one of `LAYOUTS`: the slice of largest area, three slices side by side, or all slices to scroll through.
        color_map: one of `colors.COLOR_MAPS`.
        signal_range: signal shown with the first and the last color.
        opacity: weight of the color inside the nodule; 1 as in the paper.
        field_mm: side of the square shown; wider where the nodule needs it.
    """

    layout: str = "slice"
    color_map: str = colors.DEFAULT_STYLE.color_map
    signal_range: tuple[float, float] = colors.DEFAULT_STYLE.signal_range
    opacity: float = 1.0
    field_mm: float = FIELD_MM

    def __post_init__(self) -> None:
        low, high = self.signal_range
        rules = (
            (self.layout in LAYOUTS, f"layout is {self.layout!r}, expected {', '.join(LAYOUTS)}"),
            (low < high, f"signal range is {low:g} to {high:g}, expected the lower value first"),
            (self.color_map in colors.COLOR_MAPS, f"color map is {self.color_map!r}, expected jet or viridis"),
            (0 < self.opacity <= 1, f"opacity is {self.opacity:g}, expected more than 0 and at most 1"),
            (10 <= self.field_mm <= 500, f"field is {self.field_mm:g} mm, expected 10 to 500"),
        )
        for holds, fault in rules:
            if not holds:
                raise InputError(f"The {fault}; change it.")


@dataclass(frozen=True, eq=False)
class NoduleVoxels:
    """A nodule to be read: its CT, its mask (bool) and the signal inside it (float32), all on the CT's grid."""

    volume: Volume
    mask: np.ndarray
    signal: np.ndarray


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a nodule: RGB uint8 by modality, equally many and equally large; `start` is shown first."""

    frames: dict[str, list[np.ndarray]]
    start: int
    pixel_mm: float


def render(nodule: NoduleVoxels, style: RenderStyle) -> Pictures:
    """Render a nodule in both modalities.

    Args:
        nodule: with the CT around it.
        style: of all pictures of the study.

    Raises:
        InputError: the mask is empty.
    """
    heights, start, center, field_mm = _planes(nodule, style)
    size = PANEL_PX[style.layout]
    target = AxialPlane(center, field_mm, size).grid(heights)
    gray = sample_ct(nodule.volume, target)
    covered, signal = sample_nodule(nodule.mask, True, nodule.signal, nodule.volume.grid, target)
    inside = covered >= 0.5
    scaled = colors.scale(signal, inside, "fixed", style.signal_range)
    colored = colors.composite(gray, colors.COLOR_MAPS[style.color_map](scaled), inside, style.opacity)
    plain = np.repeat(gray[..., None], 3, axis=-1)
    rises_mm = [height - heights[start] for height in heights]
    captions = [
        f"{abs(rise):.1f} mm {'cranial' if rise > 0 else 'caudal'}" if abs(rise) >= 0.05 else "" for rise in rises_mm
    ]
    frames = {}
    for modality, panels in ((CT, plain), (CT_MAP, colored)):
        marked = [_mark_panel(panel, caption, size / field_mm) for panel, caption in zip(panels, captions, strict=True)]
        groups = [marked] if style.layout == "strip" else [[panel] for panel in marked]
        frames[modality] = [_page(group, style if modality == CT_MAP else None) for group in groups]
    return Pictures(frames, 0 if style.layout == "strip" else start, field_mm / size)


def png(picture: np.ndarray) -> bytes:
    """Encode a picture without loss, and without any word about where it comes from."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()


def _planes(nodule: NoduleVoxels, style: RenderStyle) -> tuple[list[float], int, np.ndarray, float]:
    """Return the heights of the slices (LPS z, mm), the index of the first shown, the center and the side in mm."""
    index = np.argwhere(nodule.mask)
    if not index.size:
        raise InputError("The nodule has no voxel, expected a segmented one; choose findings that are segmented.")
    grid = nodule.volume.grid
    across = int(np.abs(grid.affine[2, :3] / grid.spacing_mm).argmax())  # the axis nearest to the patient's own
    slices, areas = np.unique(index[:, across], return_counts=True)
    middle = grid.index_to_lps(index[index[:, across] == slices[areas.argmax()]].mean(0))
    points = grid.index_to_lps(index)
    center = (points.min(0) + points.max(0)) / 2
    field_mm = max(style.field_mm, float(np.ptp(points[:, :2], axis=0).max()) / MAX_FIELD_FRACTION)
    step_mm = float(abs(grid.affine[2, across]))
    rise_mm = points[:, 2] - middle[2]
    offsets = [0]  # in slices from the one of largest area; the first lies lowest
    if style.layout == "strip":
        step = max(1, round(STRIP_FRACTION * float(np.ptp(rise_mm)) / step_mm))
        offsets = [-step, 0, step]
    elif style.layout == "stack":
        half = MAX_SLICES // 2
        below = min(half, round((STACK_MARGIN_MM - float(rise_mm.min())) / step_mm))
        above = min(half, round((STACK_MARGIN_MM + float(rise_mm.max())) / step_mm))
        offsets = list(range(-max(below, 1), max(above, 1) + 1))
    heights = [float(middle[2]) + step_mm * offset for offset in offsets]
    return heights, offsets.index(0), center, field_mm


def _mark_panel(panel: np.ndarray, caption: str, px_per_mm: float) -> Image.Image:
    """Draw what helps to look at a panel, the same in both modalities: center marks, directions, a length."""
    image = Image.fromarray(panel)
    pen, size = ImageDraw.Draw(image), image.width
    middle, tick = size / 2, size * 0.025
    for a, b in (((middle, 0), (middle, tick)), ((middle, size - tick), (middle, size - 1))):
        for color, width in ((BLACK, 6), (WHITE, 2)):
            pen.line([a, b], color, width)
            pen.line([a[::-1], b[::-1]], color, width)
    pad = 2 * tick + 4
    for letter, position, anchor in (
        ("R", (tick + 6, middle), "lm"),
        ("L", (size - tick - 6, middle), "rm"),
        ("A", (middle, tick + 4), "mt"),
        ("P", (middle, size - tick - 4), "mb"),
    ):
        _text(pen, position, letter, anchor)
    bottom, length = size - pad / 2, 10 * px_per_mm
    for color, width in ((BLACK, 7), (WHITE, 3)):
        pen.line([(pad, bottom), (pad + length, bottom)], color, width)
    _text(pen, (pad + length / 2, bottom - 5), "10 mm", "mb")
    _text(pen, (size - pad, pad), caption, "rt")
    return image


def _page(panels: list[Image.Image], legend: RenderStyle | None) -> np.ndarray:
    """Put panels side by side, with room for the legend; the legend itself only where there is a map."""
    size = panels[0].width
    page = Image.new("RGB", (len(panels) * (size + GAP_PX) + LEGEND_PX, size), BLACK)
    for index, panel in enumerate(panels):
        page.paste(panel, (index * (size + GAP_PX), 0))
    left, pen = page.width - LEGEND_PX, ImageDraw.Draw(page)
    for line, text in enumerate((f"L {colors.LUNG_LEVEL_HU:.0f} HU", f"W {colors.LUNG_WIDTH_HU:.0f} HU")):
        _text(pen, (left + LEGEND_PX / 2, size - 8 - 17 * line), text, "mb", SMALL_PX, GRAY)
    if legend is None:
        return np.asarray(page)
    for line, text in enumerate(("Heterogeneity", "signal", "(relative units)")):
        _text(pen, (left + LEGEND_PX / 2, 6 + 17 * line), text, "mt", SMALL_PX)
    top, bottom, x, width = 66, size - 62, left + 8, 20
    ramp = colors.COLOR_MAPS[legend.color_map](np.linspace(1, 0, bottom - top))
    page.paste(Image.fromarray(np.repeat(ramp[:, None], width, axis=1)), (x, top))
    low, high = legend.signal_range
    for value in colors.legend_ticks(low, high):
        y = bottom - 1 - (value - low) / (high - low) * (bottom - top - 1)
        pen.line([(x + width, y), (x + width + 5, y)], WHITE, 1)
        beyond = " or more" if value == high else " or less" if value == low > 0 else ""
        _text(pen, (x + width + 9, y), f"{value:.3g}{beyond}", "lm", SMALL_PX)
    return np.asarray(page)


def _text(
    pen: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    anchor: str,
    px: int = TEXT_PX,
    color: tuple = WHITE,
) -> None:
    pen.text(position, text, color, load_font(px), anchor=anchor, stroke_width=1, stroke_fill=BLACK)
