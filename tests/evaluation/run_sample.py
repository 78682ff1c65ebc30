"""`results.jsonl` of rectangles."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny_dataset import SIZE, Rectangle, mask

from stmask_deploy.evaluation.run_file import RunFile, read_run_file

Shown = tuple[int, int, float, Rectangle]  # id, class id, score, rectangle
LABELS = ("cat", "dog", "bird")


def records(frames: Sequence[Sequence[Shown]], source: str = "video1", size: tuple[int, int] = SIZE
            ) -> list[dict[str, Any]]:
    """The lines of the file."""
    return [{"type": "header", "schema": "stmask-results/1", "source": source, "width": size[1], "height": size[0],
             "fps": None, "bundle": {}, "options": {}},
            *({"type": "frame", "index": index, "time_s": index / 30,
               "instances": [instance(*shown, size=size) for shown in rows]} for index, rows in enumerate(frames)),
            {"type": "end", "frames": len(frames), "interrupted": False, "damage": {}}]


def instance(identity: int, class_id: int, score: float, rectangle: Rectangle, size: tuple[int, int] = SIZE
             ) -> dict[str, Any]:
    y, x, height, width = rectangle
    return {"id": identity, "class_id": class_id, "label": LABELS[class_id - 1], "score": score,
            "box": [x, y, x + width, y + height], "segmentation": mask(rectangle, size), "origin": "detected", "age": 0}


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """The file, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_file(folder: Path, frames: Sequence[Sequence[Shown]], **header: Any) -> RunFile:
    """Written and read."""
    return read_run_file(write_lines(folder / "results.jsonl", records(frames, **header)))
