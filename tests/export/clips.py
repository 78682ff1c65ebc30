"""Clips for the tests of int8: folders of images."""
from __future__ import annotations

from pathlib import Path

import cv2

from stmask_deploy.synthetic.clips import render

SIZE = (72, 100)  # height and width, pixels


def write_clip(folder: Path, num_frames: int) -> Path:
    folder.mkdir()
    for index, frame in enumerate(render("val", 1, num_frames, SIZE).pictures()):
        cv2.imwrite(str(folder / f"{index:03d}.png"), frame)
    return folder
