"""Colors of pictures: the signal's scales and color maps, the one default style, the lung window.

The paper shows the generator's signal inside a nodule as a JET overlay scaled anew on every slice. `render_paper` keeps
that style; the scales "nodule" and "fixed" make colors comparable. Images are RGB uint8 throughout, never BGR.
Slicer loads this file at its start: it imports NumPy alone.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

ScaleMode = Literal["slice", "nodule", "fixed"]

LUNG_LEVEL_HU, LUNG_WIDTH_HU = -600.0, 1500.0


@dataclass(frozen=True)
class DisplayStyle:
    """How the signal inside a nodule is colored; without arguments the default of all files, panel and study pictures.

    Attributes:
        color_map: one of `COLOR_MAPS`; "jet" is the paper's.
        scale: "fixed", the same `signal_range` for all, or "nodule", from a nodule's lowest signal to its highest.
        signal_range: signal shown in the first and in the last color, in mode "fixed".
    """

    color_map: str = "viridis"
    scale: str = "fixed"
    signal_range: tuple[float, float] = (0.0, 1.2)


DEFAULT_STYLE = DisplayStyle()


def scale(
    signal: np.ndarray,
    labels: np.ndarray,
    mode: ScaleMode,
    fixed_range: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Map the signal to 0..1 for display.

    Args:
        signal: (z, y, x) or (y, x) float, relative units.
        labels: same shape, integer; 0 outside nodules.
        mode: "slice" spreads each slice between its own minimum and maximum, background included (the paper);
            "nodule" does so for each label's voxels; "fixed" uses `fixed_range`, the same for all.
        fixed_range: signal values shown as 0 and 1 in mode "fixed".

    Returns:
        float32 in 0..1, the signal's shape; 0 where the range is empty (register U3), and outside nodules except in
        mode "slice".

    Raises:
        ValueError: if the mode is unknown, shapes differ or the fixed range is not increasing.
    """
    if signal.shape != labels.shape:
        raise ValueError(f"signal {signal.shape} and labels {labels.shape} must have the same shape.")
    if mode == "slice":
        return _stretch(signal, signal.min((-2, -1), keepdims=True), signal.max((-2, -1), keepdims=True))
    if mode == "nodule":
        inside = labels > 0
        low = np.full(int(labels.max(initial=0)) + 1, np.inf, np.float32)
        high = -low
        np.minimum.at(low, labels[inside], signal[inside].astype(np.float32))
        np.maximum.at(high, labels[inside], signal[inside].astype(np.float32))
        low[0] = high[0] = 0
        return np.where(labels > 0, _stretch(signal, low[labels], high[labels]), np.float32(0))
    if mode == "fixed":
        low, high = fixed_range
        if not low < high:
            raise ValueError(f"the fixed range is {fixed_range}: give the lower value first.")
        return np.where(labels > 0, _stretch(signal, low, high), np.float32(0))
    raise ValueError(f"the scale mode is {mode!r}: expected 'slice', 'nodule' or 'fixed'.")


def jet(scaled: np.ndarray) -> np.ndarray:
    """Color 0..1 values with JET in closed form, quantized to 8 bits by truncation as in the paper.

    Args:
        scaled: any shape, values in 0..1.

    Returns:
        uint8 RGB, the shape of `scaled` with a last axis of 3.
    """
    levels = np.arange(256) / 255
    channels = [np.clip(1.5 - np.abs(4 * levels - peak), 0, 1) for peak in (3, 2, 1)]
    return np.rint(255 * np.stack(channels, -1)).astype(np.uint8)[_to_uint8(scaled)]


def viridis(scaled: np.ndarray) -> np.ndarray:
    """Color 0..1 values with a perceptually uniform map that also reads in gray and for color-blind eyes.

    Args:
        scaled: any shape, values in 0..1.

    Returns:
        uint8 RGB, the shape of `scaled` with a last axis of 3.
    """
    from matplotlib import colormaps  # only this map needs matplotlib

    return colormaps["viridis"](np.arange(256), bytes=True)[_to_uint8(scaled), :3]


COLOR_MAPS = {"jet": jet, "viridis": viridis}


def legend_ticks(low: float, high: float) -> np.ndarray:
    """Return the signal values that a legend names, both ends included: five or six even steps, the rounder ones."""
    steps = min((5, 6), key=lambda count: len(f"{(high - low) / count:.3g}"))
    return np.linspace(low, high, steps + 1)


def window(hu: np.ndarray, level_hu: float = LUNG_LEVEL_HU, width_hu: float = LUNG_WIDTH_HU) -> np.ndarray:
    """Map HU to 8-bit gray through a display window; values beyond it saturate.

    Args:
        hu: any shape.
        level_hu: middle of the window.
        width_hu: difference between the values shown black and white.

    Returns:
        uint8, the shape of `hu`.
    """
    low = level_hu - width_hu / 2
    return _to_uint8(_stretch(hu, low, low + width_hu))


def composite(gray: np.ndarray, color: np.ndarray, mask: np.ndarray, opacity: float = 1.0) -> np.ndarray:
    """Lay colors over a gray image where the mask is set.

    Args:
        gray: (..., ) uint8.
        color: (..., 3) uint8 RGB.
        mask: (..., ) bool.
        opacity: weight of the color inside the mask; 1 hides the gray (the paper).

    Returns:
        (..., 3) uint8 RGB.
    """
    base = np.repeat(gray[..., None], 3, axis=-1)
    blend = np.rint(opacity * color.astype(np.float32) + (1 - opacity) * base).astype(np.uint8)
    return np.where(mask[..., None], blend, base)


def render_paper(hu: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Render the paper's overlay: CT and signal scaled per slice, JET where the 8-bit signal is above zero.

    A slice without signal range is plain CT (the original divides by zero there, and swaps red and blue: register U3).

    Args:
        hu: (z, y, x) or (y, x) CT.
        signal: same shape, the generator's output.

    Returns:
        uint8 RGB with a last axis of 3.
    """
    scaled = scale(signal, np.ones(signal.shape, np.uint8), "slice")
    gray = _to_uint8(_stretch(hu, hu.min((-2, -1), keepdims=True), hu.max((-2, -1), keepdims=True)))
    return composite(gray, jet(scaled), _to_uint8(scaled) > 0)


def _stretch(values: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Map low..high linearly to 0..1, clipped; all zeros where high equals low."""
    width = np.subtract(high, low, dtype=np.float32)
    scaled = np.subtract(values, low, dtype=np.float32) / np.where(width > 0, width, np.float32(1))
    return np.clip(np.where(width > 0, scaled, np.float32(0)), 0, 1).astype(np.float32)


def _to_uint8(scaled: np.ndarray) -> np.ndarray:
    """Truncate 255 x to 8 bits; the small addend keeps i / 255 at i in single precision."""
    return np.floor(255 * np.asarray(scaled, np.float32) + np.float32(1e-3)).clip(0, 255).astype(np.uint8)
