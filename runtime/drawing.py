"""Results drawn over a frame: masks, contours and name plates, one colour per identity."""
from __future__ import annotations

import cv2
import numpy as np

from .colors import Color, identity_color
from .frame_source import Image
from .label_plates import INK, PlateStyle, Rectangle, draw_plate, place_plates
from .masks import MaskPatch
from .result import FrameResult

DETECTED_OPACITY = 0.45
PROPAGATED_OPACITY = 0.22


def draw_result(image: Image, result: FrameResult, detect_every: int = 1) -> Image:
    """A copy of the frame with its instances drawn over it.

    Instances detected in the last key frame (this frame if `detect_every` is 1) have a solid contour and a filled
    plate. Instances missed there and propagated from earlier frames have a fainter mask, a dashed contour and an
    outlined plate. Instances with an empty mask are shown by their box.

    Args:
        image: (H, W, 3) uint8 BGR, the frame the result belongs to.
        result: its instances.
        detect_every: interval between key frames, see `RunOptions`.
    """
    canvas = image.copy()
    height, width = image.shape[:2]
    line = max(1, round(min(height, width) / 400))
    colors = [identity_color(identity) for identity in result.ids.tolist()]
    # Between key frames every instance is propagated; drawing that differently would make the video flicker.
    missed = [age >= detect_every for age in result.ages.tolist()]
    # Large masks first, so that small ones in front of them stay visible.
    for row in sorted(range(len(result)), key=lambda row: -result.patches[row].pixels.size):
        opacity = PROPAGATED_OPACITY if missed[row] else DETECTED_OPACITY
        _tint(canvas, result.patches[row], colors[row], opacity)
        _outline(canvas, _contours(result, row), colors[row], line, is_dashed=missed[row])
    _draw_plates(canvas, result, colors, missed)
    return canvas


def _tint(canvas: Image, patch: MaskPatch, color: Color, opacity: float) -> None:
    """Blend a colour into the mask's pixels, with a 256-entry lookup table per channel."""
    height, width = patch.pixels.shape
    if not patch.pixels.size:
        return
    levels = np.arange(256)[:, None] * (1 - opacity) + np.array(color) * opacity
    table = np.rint(levels).astype(np.uint8)[None]  # (1, 256, 3)
    region = canvas[patch.y:patch.y + height, patch.x:patch.x + width]
    tinted = cv2.LUT(np.ascontiguousarray(region), table)
    cv2.copyTo(tinted, np.ascontiguousarray(patch.pixels).view(np.uint8), region)


def _contours(result: FrameResult, row: int) -> list[np.ndarray]:
    """Closed curves, (p, 1, 2) int32 x, y, one point per pixel: the edge of the mask, or of the box if it is empty."""
    patch = result.patches[row]
    if not patch.pixels.size:
        x1, y1, x2, y2 = _anchor(result, row)
        pixels = np.ones((max(1, y2 - y1), max(1, x2 - x1)), np.uint8)
        return list(cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x1, y1))[0])
    pixels = np.ascontiguousarray(patch.pixels).view(np.uint8)
    return list(cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(patch.x, patch.y))[0])


def _outline(canvas: Image, contours: list[np.ndarray], color: Color, line: int, *, is_dashed: bool) -> None:
    """Draw a coloured line over a wider dark one, which keeps it visible on any background.

    Contours are first thinned to fewer than one point per pixel: drawing time grows with the number of segments, and
    thinning smooths the staircase of the pixel grid.
    """
    if is_dashed:
        dash = 6 * line
        contours = [np.ascontiguousarray(points[start:start + dash + 1:2 * line]) for points in contours
                    for start in range(0, len(points), 2 * dash)]
    else:
        contours = [cv2.approxPolyDP(points, 0.4 + 0.3 * line, True) for points in contours]
    cv2.polylines(canvas, contours, not is_dashed, INK, line + line // 2 + 1, cv2.LINE_AA)
    cv2.polylines(canvas, contours, not is_dashed, color, line, cv2.LINE_AA)


def _draw_plates(canvas: Image, result: FrameResult, colors: list[Color], missed: list[bool]) -> None:
    height, width = canvas.shape[:2]
    style = PlateStyle.for_frame(height, width)
    texts = [_text(style, width, f"{identity}", label, f"{score:.2f}") for identity, label, score
             in zip(result.ids.tolist(), result.labels, result.scores.tolist(), strict=True)]
    rows = np.argsort(-result.scores, kind="stable").tolist()
    places = place_plates([_anchor(result, row) for row in rows], [style.plate_size(texts[row]) for row in rows],
                          (width, height))
    # The best-scoring plate is placed first and drawn last, so that it is on top wherever plates overlap.
    for row, place in reversed(list(zip(rows, places, strict=True))):
        draw_plate(canvas, place, texts[row], colors[row], style, is_outlined=missed[row])


def _text(style: PlateStyle, width: int, *parts: str) -> str:
    """As many of the parts as fit into a third of the frame's width, but at least one.

    Letters have a minimum height, so complete plates would cover a very small picture.
    """
    texts = [" ".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((text for text in texts if 3 * style.plate_size(text)[0] <= width), texts[-1])


def _anchor(result: FrameResult, row: int) -> Rectangle:
    """The rectangle a plate belongs to: the bounding rectangle of the mask, or the box if the mask is empty."""
    patch = result.patches[row]
    height, width = patch.pixels.shape
    if patch.pixels.size:
        return patch.x, patch.y, patch.x + width, patch.y + height
    x1, y1, x2, y2 = np.rint(result.boxes_px[row]).astype(int).tolist()
    return x1, y1, x2, y2
