"""Decoded video frames as upright pictures."""
from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from .frame_source import Image

ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


class Orientation(NamedTuple):
    """How a decoded picture becomes upright."""

    num_turns: int = 0  # quarter turns anticlockwise
    is_mirrored: bool = False  # then left and right are swapped


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """What the frame's display matrix requires, to the nearest quarter turn."""
    # `frame.side_data` would keep its container, which refers to the frame: pictures would stay until Python looks for
    # such circles, which are gigabytes of a video in 4K.
    matrix: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # which its stub lacks
    if matrix is None:
        return Orientation()
    # A pixel at column x and row y is displayed at column a * x + c * y and row b * x + d * y.
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    is_sideways = abs(b) + abs(c) > abs(a) + abs(d)
    leftwards, upwards = (c < 0, b < 0) if is_sideways else (a < 0, d < 0)
    num_turns = (1 if upwards else 3) if is_sideways else (2 if upwards else 0)
    return Orientation(num_turns, is_sideways ^ leftwards ^ upwards)


def upright(frame: av.VideoFrame, orientation: Orientation) -> Image:
    """(H, W, 3) uint8 BGR."""
    image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    turn = ROTATIONS.get(orientation.num_turns)
    if turn is not None:
        image = np.asarray(cv2.rotate(image, turn), np.uint8)
    return np.asarray(cv2.flip(image, 1), np.uint8) if orientation.is_mirrored else np.ascontiguousarray(image)


def pixel_aspect(stream: Any, orientation: Orientation) -> Fraction:
    """Width / height of a pixel of the upright picture; 1 if the stream does not say."""
    aspect: Fraction = stream.sample_aspect_ratio or Fraction(1)
    return 1 / aspect if orientation.num_turns % 2 else aspect
