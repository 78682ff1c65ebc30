"""Random views of a frame: flip, zoom, shift and colour, the same in both frames but for slight changes of colour."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

ZOOM = (0.75, 1.35)  # smallest and largest scale factor
STRETCH = 1.12  # largest ratio between the scales of the two axes
BRIGHTNESS = 32.0  # grey levels
CONTRAST = SATURATION = (0.7, 1.35)
HUE = 9.0  # in OpenCV's units of two degrees
SECOND_FRAME_SHARE = 0.25  # strength of the extra colour change of the second frame


@dataclass(frozen=True)
class Colors:
    """A change of colour."""

    brightness: float
    contrast: float
    saturation: float
    hue: float  # in OpenCV's units of two degrees

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float = 1.0) -> Colors:
        """A random change; `strength` 0 means none."""
        def factor(limits: tuple[float, float]) -> float:
            return float(np.exp(strength * rng.uniform(*np.log(limits))))

        return cls(strength * rng.uniform(-BRIGHTNESS, BRIGHTNESS), factor(CONTRAST), factor(SATURATION),
                   strength * rng.uniform(-HUE, HUE))

    def apply(self, image: Image) -> Image:
        """(H, W, 3) BGR -> the same picture with changed colours."""
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float32)
        hsv[..., 0] = (hsv[..., 0] + self.hue) % 180
        hsv[..., 1] *= self.saturation
        changed = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR).astype(np.float32)
        changed = (changed - 128) * self.contrast + 128 + self.brightness
        return np.clip(changed, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class View:
    """An affine map from a picture to the network's input, without rotation."""

    matrix: NDArray[np.float64]  # (2, 3), pixels to pixels, pixel centres at integers
    size: tuple[int, int]  # (height, width) of the input

    @classmethod
    def draw(cls, rng: np.random.Generator, picture_hw: tuple[int, int], size: tuple[int, int]) -> View:
        """A random window, which may extend beyond the picture, mirrored half the time."""
        zoom = np.exp(rng.uniform(*np.log(ZOOM)))
        stretch = np.exp(rng.uniform(-1, 1) * np.log(STRETCH) / 2)
        width, height = float(stretch / zoom), float(1 / (stretch * zoom))
        left, top = (float(rng.uniform(min(0.0, 1 - side), max(0.0, 1 - side))) for side in (width, height))
        return cls._from_window(picture_hw, size, (left, top, width, height), flip=bool(rng.random() < 0.5))

    @classmethod
    def _from_window(cls, picture_hw: tuple[int, int], size: tuple[int, int],
                     window: tuple[float, float, float, float], flip: bool) -> View:
        """`window` is (left, top, width, height) in fractions of the picture."""
        left, top, width, height = window
        scale_x, scale_y = size[1] / (width * picture_hw[1]), size[0] / (height * picture_hw[0])
        matrix = np.array([[scale_x, 0, scale_x * (0.5 - left * picture_hw[1]) - 0.5],
                           [0, scale_y, scale_y * (0.5 - top * picture_hw[0]) - 0.5]])
        if flip:
            matrix = np.array([[-1, 0, size[1] - 1], [0, 1, 0]]) @ np.vstack([matrix, [0, 0, 1]])
        return cls(matrix, size)

    def apply(self, image: Image, border: tuple[float, ...]) -> Image:
        """(H, W, ...) uint8 -> (height, width, ...), bilinear, filled with `border` beyond the picture."""
        return np.asarray(cv2.warpAffine(image, self.matrix, self.size[::-1], flags=cv2.INTER_LINEAR,
                                         borderMode=cv2.BORDER_CONSTANT, borderValue=border), np.uint8)


@dataclass(frozen=True)
class PairAugmentation:
    """The augmentation of the two frames of a pair."""

    view: View
    colors: tuple[tuple[Colors, ...], tuple[Colors, ...]]  # changes applied to the first and to the second frame

    @classmethod
    def draw(cls, rng: np.random.Generator, picture_hw: tuple[int, int], size: tuple[int, int]) -> PairAugmentation:
        """A random augmentation."""
        common = Colors.draw(rng)
        return cls(View.draw(rng, picture_hw, size), ((common,), (common, Colors.draw(rng, SECOND_FRAME_SHARE))))
