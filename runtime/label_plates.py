"""Name plates of instances: their size, placement and drawing."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2

from .colors import Color
from .frame_source import Image

FONT = cv2.FONT_HERSHEY_DUPLEX
INK: Color = (24, 20, 18)  # almost black: text of filled plates, background of outlined ones

Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels, ends exclusive


@dataclass(frozen=True)
class PlateStyle:
    """Plate dimensions in pixels, scaled to the frame."""

    text_height: int  # of a capital letter
    stroke: int  # thickness of the letters
    padding: int
    border: int  # of an outlined plate

    @classmethod
    def for_frame(cls, height: int, width: int) -> PlateStyle:
        """A style legible from 240p (capitals 9 pixels high) to 4K (37 pixels)."""
        text = max(9, round(5.5 + 0.0145 * min(height, width)))
        return cls(text, max(1, round(text / 18)), max(2, round(text * 0.34)), max(1, round(text / 11)))

    @property
    def scale(self) -> float:
        """OpenCV's font scale for `text_height`."""
        return float(cv2.getFontScaleFromHeight(FONT, self.text_height, self.stroke))

    def plate_size(self, text: str) -> tuple[int, int]:
        """(width, height) of the plate around a text."""
        (width, _), descent = cv2.getTextSize(text, FONT, self.scale, self.stroke)
        return width + 2 * self.padding, self.text_height + 2 * self.padding + max(1, descent // 3)


def place_plates(anchors: Sequence[Rectangle], sizes: Sequence[tuple[int, int]], frame_wh: tuple[int, int]
                 ) -> list[Rectangle]:
    """A place for each plate: next to its anchor, inside the frame, clear of plates placed earlier if possible.

    Args:
        anchors: the rectangles that the plates belong to, most important first.
        sizes: (width, height) of each plate.
        frame_wh: (width, height) of the frame.
    """
    placed: list[Rectangle] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        placed.append(min(_candidates(anchor, size, frame_wh),
                          key=lambda place: sum(_overlap(place, other) for other in placed)))
    return placed


def _candidates(anchor: Rectangle, size: tuple[int, int], frame_wh: tuple[int, int]) -> Iterable[Rectangle]:
    """Places in order of preference: above, inside at the top, below, then in steps down and up along the left edge."""
    x1, y1, x2, y2 = anchor
    width, height = size
    corners = [(x1, y1 - height), (x1, y1), (x2 - width, y1 - height), (x1, y2), (x2 - width, y2)]
    corners += [(x1, y1 + step * (height + 1)) for step in (1, -2, 2, -3, 3, 4)]
    for x, y in corners:
        x = max(0, min(x, frame_wh[0] - width))
        y = max(0, min(y, frame_wh[1] - height))
        yield x, y, x + width, y + height


def _overlap(a: Rectangle, b: Rectangle) -> int:
    """Shared area in pixels."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def draw_plate(canvas: Image, place: Rectangle, text: str, color: Color, style: PlateStyle, *,
               is_outlined: bool) -> None:
    """Draw into `canvas`: dark text on a coloured plate, or coloured text on a dark plate with a coloured edge."""
    _fill_rounded(canvas, place, color, style.padding)
    if is_outlined:
        x1, y1, x2, y2 = place
        edge = style.border
        _fill_rounded(canvas, (x1 + edge, y1 + edge, x2 - edge, y2 - edge), INK, style.padding - edge)
    baseline = place[1] + style.padding + style.text_height
    cv2.putText(canvas, text, (place[0] + style.padding, baseline), FONT, style.scale, color if is_outlined else INK,
                style.stroke, cv2.LINE_AA)


def _fill_rounded(canvas: Image, place: Rectangle, color: Color, radius: int) -> None:
    """Draw a filled rectangle with rounded corners, made by the round ends of a thick outline."""
    x1, y1, x2, y2 = place
    radius = max(0, min(radius, (x2 - x1 - 1) // 2, (y2 - y1 - 1) // 2))
    inner = (x1 + radius, y1 + radius), (x2 - 1 - radius, y2 - 1 - radius)
    cv2.rectangle(canvas, *inner, color, cv2.FILLED)
    if radius:
        cv2.rectangle(canvas, *inner, color, 2 * radius, cv2.LINE_AA)
