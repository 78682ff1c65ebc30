"""Plots for `scaling.py`; the only module that needs matplotlib."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stmask_deploy.errors import InputError, OutputError

Points = Sequence[Mapping[str, Any]]


def check_plots(folder: Path) -> None:
    """Detect problems early that would otherwise appear after minutes of measuring.

    Raises:
        InputError: matplotlib is not installed.
        OutputError: the folder does not exist.
    """
    if find_spec("matplotlib") is None:
        raise InputError("plots need matplotlib: pip install 'stmask-deploy[bench]'")
    if not folder.is_dir():
        raise OutputError(f"folder {folder} does not exist; make it first")


def write_plots(experiments: Mapping[str, Points], folder: Path, device: str) -> list[Path]:
    """Write one SVG per experiment and return their paths."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # Makes the output reproducible: equal figures give equal files.
    matplotlib.rcParams["svg.hashsalt"] = "stmask"
    paths = []
    for name, points in experiments.items():
        figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
        _PLOTS[name](axes, points)
        axes.set_title(device, fontsize=8)
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)  # room for the markers of the highest points
        axes.grid(alpha=0.3)
        path = folder / f"scaling-{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        paths.append(path)
    return paths


def _lines(axes: Any, x: Sequence[float], points: Points, names: Sequence[str]) -> None:
    for name in names:
        axes.plot(x, [point[f"{name}_ms"] for point in points], marker="o", label=name.replace("_", " "))
    axes.set_ylabel("ms per frame, median")
    axes.legend(fontsize=8)


def _objects(axes: Any, points: Points) -> None:
    _lines(axes, [point["objects"] for point in points], points,
           ("frame", "frame_graph", "instance_graph", "temporal_graph", "host"))
    axes.set_xlabel("objects in every frame")


def _size(axes: Any, points: Points) -> None:
    _lines(axes, [point["width"] * point["height"] / 1e6 for point in points], points,
           ("frame", "frame_graph", "decode", "host"))
    axes.set_xlabel("megapixels per frame")


def _length(axes: Any, points: Points) -> None:
    for memory in dict.fromkeys(point["memory"] for point in points):
        chosen = [point for point in points if point["memory"] == memory]
        axes.plot([point["objects_seen"] for point in chosen], [point["frame_ms"] for point in chosen], marker="o",
                  label=f"{memory} memory")
    axes.set_xlabel("objects ever seen")
    axes.set_ylabel("ms per frame, median")
    axes.legend(fontsize=8)


def _streams(axes: Any, points: Points) -> None:
    axes.plot([point["streams"] for point in points], [point["fps"] for point in points], marker="o")
    axes.set_xlabel("videos at once")
    axes.set_ylabel("frames per second, all together")


def _threads(axes: Any, points: Points) -> None:
    axes.plot([point["threads"] for point in points], [point["fps"] for point in points], marker="o")
    axes.set_xlabel("CPU threads of the graphs")
    axes.set_ylabel("frames per second")


_PLOTS: Mapping[str, Callable[[Any, Points], None]] = {"objects": _objects, "size": _size, "length": _length,
                                                       "streams": _streams, "threads": _threads}
