"""Graphs of one bundle, and of its forks, never run at the same time."""
from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stmask_deploy.errors import InputError
from stmask_deploy.runtime import loading
from stmask_deploy.runtime.loading import Bundle, open_bundle


class Slow:
    """A backend that notes when it ran."""

    def __init__(self, spans: list[tuple[float, float]]) -> None:
        self._spans = spans

    def run(self, *_args: Any) -> dict[str, Any]:
        start = time.perf_counter()
        time.sleep(0.02)
        self._spans.append((start, time.perf_counter()))
        return {}


def most_at_once(bundle: Bundle) -> int:
    """Run both graphs of `bundle` from four threads; how many ran at the same time at most."""
    spans: list[tuple[float, float]] = []
    for graph in (bundle.frame, bundle.temporal):
        inner = getattr(graph, "_graph", None)
        owner = graph if inner is None else inner
        owner.run = Slow(spans).run  # type: ignore[union-attr, method-assign]
    threads = [threading.Thread(target=graph.run, args=({},)) for graph in (bundle.frame, bundle.temporal) * 2 if graph]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spans) == 4
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


@pytest.mark.parametrize(("cores", "is_in_turn"), [(1, True), (2, False)])
def test_one_at_a_time_where_cores_are_shared(bundle: Path, monkeypatch: pytest.MonkeyPatch, cores: int,
                                              is_in_turn: bool) -> None:
    monkeypatch.setattr(loading, "available_cpus", lambda: cores)
    assert (most_at_once(open_bundle(bundle, threads=1)) == 1) == is_in_turn


def test_a_turn_ends_with_a_failure(bundle: Path) -> None:
    graph = open_bundle(bundle).frame
    frame = np.full((1, *graph.inputs["frame"].shape[1:]), 100, np.uint8)
    with pytest.raises(InputError, match="no output 'nothing'|no output nothing"):
        graph.run({"frame": frame}, ["nothing"])
    assert graph.run({"frame": frame}, ["centerness"], keep=["centerness"])["centerness"].shape  # not locked
