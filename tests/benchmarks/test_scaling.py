"""Made-up objects are what the tracker sees, and the experiments tell them."""
from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scaling
from click.testing import CliRunner
from injected import COLUMNS, ROWS, Objects, boxes_of, embeddings_of, inject

from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime.loading import Bundle, open_bundle
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.synthetic.clips import render


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(demo_bundle(), threads=1)


def shown(bundle: Bundle, objects: Objects, frames: int, **options: object) -> list[list[int]]:
    """Identities shown in each frame."""
    model = Model(inject(bundle, objects), RunOptions(**options))
    return [model.step(image).ids.tolist() for image in render("val", 0, frames, (90, 160)).pictures()]


def test_places_do_not_overlap_and_faces_differ() -> None:
    identities = np.arange(COLUMNS * ROWS)
    boxes = boxes_of(identities)
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    for a, b in combinations(boxes[:COLUMNS + 3], 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])
    embeddings = embeddings_of(identities[:20], 32)
    assert np.abs(np.linalg.norm(embeddings, axis=1) - 1).max() < 1e-6
    assert (embeddings @ embeddings.T - np.eye(20)).max() < 0.9


def test_made_up_outputs_have_the_shapes_of_real_ones(bundle: Bundle) -> None:
    made_up = inject(bundle, Objects(7))
    assert bundle.instances is not None and bundle.temporal is not None and made_up.instances and made_up.temporal
    rng = np.random.default_rng(0)
    for real, graph in ((bundle.frame, made_up.frame), (bundle.instances, made_up.instances),
                        (bundle.temporal, made_up.temporal)):
        inputs = {name: rng.random([size or 7 for size in spec.shape]).astype(spec.dtype)
                  for name, spec in real.inputs.items()}
        for name, value in graph.run(inputs).items():
            spec = real.outputs[name]
            fixed = [(ours, size) for ours, size in zip(np.shape(value), spec.shape, strict=True) if size is not None]
            assert all(ours in (size, 7) for ours, size in fixed), name
            assert np.asarray(value).dtype == spec.dtype and np.shape(value)[1:] == spec.shape[1:]


@pytest.mark.parametrize("count", [1, 100])
def test_as_many_objects_as_asked_for_and_they_stay_who_they_are(bundle: Bundle, count: int) -> None:
    first, *others = shown(bundle, Objects(count), 3)
    assert len(first) == count
    assert all(sorted(ids) == sorted(first) for ids in others)


def test_objects_that_change_are_new_ones(bundle: Bundle) -> None:
    frames = shown(bundle, Objects(2, change_every=2), 6, max_age_shown=0)
    assert [len(ids) for ids in frames] == [2] * 6
    assert len({identity for ids in frames for identity in ids}) == 6


ORDER = ("objects", "size", "streams", "threads", "length")


@pytest.mark.skipif(not scaling.STATM.exists(), reason="the system does not tell")
def test_resident_memory() -> None:
    told = [scaling.resident_mb()]
    reserved = np.empty(50_000_000, np.uint8)
    told.append(scaling.resident_mb())
    reserved[:] = 1
    told.append(scaling.resident_mb())
    before, untouched, touched = (mb or 0 for mb in told)
    assert before > 10 and untouched - before < 10 and 40 < touched - untouched < 60


@pytest.mark.slow
def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "OBJECTS", (1, 4))
    monkeypatch.setattr(scaling, "SIZES", ((64, 36), (96, 54)))
    monkeypatch.setattr(scaling, "STREAMS", (1, 2))
    opened: list[int] = []
    monkeypatch.setattr(scaling, "open_bundle", lambda *args, threads, **options: (
        opened.append(threads) or open_bundle(*args, threads=threads, **options)))
    monkeypatch.setattr(scaling, "available_cpus", lambda: 3)
    counted = [0]
    monkeypatch.setattr(scaling, "resident_mb", lambda: counted.append(counted[-1] + 1) or counted[-1])
    for name, value in (("LENGTH", 8), ("WINDOW", 4), ("CHANGE_EVERY", 2), ("AT_ONCE", 2)):
        monkeypatch.setattr(scaling, name, value)
    out = tmp_path / "out.json"
    done = CliRunner().invoke(scaling.main, ["--frames", "1", "--rounds", "1", "--threads", "1", "--json", str(out),
                                             *(word for name in ORDER for word in ("--only", name))])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())["experiments"]
    assert [point["objects"] for point in found["objects"]] == [1, 4]
    assert all(point["temporal_graph_ms"] > 0 and point["host_ms"] > 0 for point in found["objects"])
    assert [(point["width"], point["fps"] > 0) for point in found["size"]] == [(64, True), (96, True)]
    assert [(point["memory"], point["frame"], point["objects_seen"]) for point in found["length"]] == [
        ("bounded", 4, 4), ("bounded", 8, 8), ("exact", 4, 4), ("exact", 8, 8)]
    first, last = (max(counted) - 8 * turn for turn in (1, 0))  # frames of the two runs, the last ones of all
    assert [point["resident_mb"] for point in found["length"]] == [first - 4, first, last - 4, last]
    assert [point["streams"] for point in found["streams"]] == [1, 2]
    assert [(point["threads"], point["fps"] > 0) for point in found["threads"]] == [(1, True), (2, True), (3, True)]
    assert opened == [1, 1, 2, 3]


class Paced:
    """A setup whose runs take the same time for every frame after warm-up, by threads."""

    frames, rounds = 2, 3

    def open(self, threads: int) -> int:
        return threads

    def run(self, bundle: int, _clip: Path, frames: int, mode: str) -> SimpleNamespace:
        assert (frames, mode) == (scaling.WARMUP + 2, "auto")
        return SimpleNamespace(periods=lambda: [99.0] * scaling.WARMUP + [0.4 / bundle, 0.6 / bundle])


def test_rates_are_frames_by_seconds(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "available_cpus", lambda: 4)
    assert scaling.by_threads(Paced()) == [  # type: ignore[arg-type]
        {"threads": 1, "fps": 2.0}, {"threads": 2, "fps": 4.0}, {"threads": 4, "fps": 8.0}]
    monkeypatch.setattr(scaling, "STREAMS", (1, 3))
    times = iter([0.0, 8.0, 10.0, 14.0])  # seconds before and after one stream of two frames, and three
    monkeypatch.setattr(scaling, "time", SimpleNamespace(perf_counter=times.__next__))
    setup = SimpleNamespace(bundle=bundle, frames=2, rounds=1)
    assert scaling.by_streams(setup) == [  # type: ignore[arg-type]
        {"streams": 1, "fps": 0.25}, {"streams": 3, "fps": 1.5}]


def test_sizes_have_rates_of_overlapped_runs_and_stages_of_others(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SIZES", ((64, 36), (96, 54)))

    def run(_bundle: object, clip: Path, frames: int, mode: str = "latency") -> SimpleNamespace:
        width = int(clip.stem)
        assert frames == scaling.WARMUP + 2 and (mode == "auto") is (len(modes) % 2 == 1)
        modes.append(mode)
        pace = width / 640 if mode == "auto" else width
        times = [99.0] * scaling.WARMUP + [0.5 * pace, 1.5 * pace]
        return SimpleNamespace(periods=lambda: times, frames=[{"frame_graph": one / 2} for one in times])

    modes: list[str] = []
    setup = SimpleNamespace(bundle=None, folder=tmp_path, frames=2, rounds=2, run=run)
    found = scaling.by_size(setup)  # type: ignore[arg-type]
    assert [(one["width"], one["height"], one["fps"]) for one in found] == [(64, 36, 10.0), (96, 54, 6.667)]
    assert [(one["frame_ms"], one["frame_graph_ms"]) for one in found] == [(64e3, 32e3), (96e3, 48e3)]


def test_stages_are_medians_in_milliseconds() -> None:
    frames = [{"frame": 0.01, "frame_graph": 0.004, "decode": 0.001}, {"frame": 0.02, "frame_graph": 0.006},
              {"frame": 0.04, "frame_graph": 0.005, "decode": 0.002}]
    found = scaling._stages(frames)
    assert (found["frame_ms"], found["frame_graph_ms"], found["decode_ms"], found["host_ms"]) == (20.0, 5.0, 1.0, 14.0)
    assert found["temporal_graph_ms"] == 0


@pytest.mark.parametrize("cores, counts", [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]),
                                           (12, [1, 2, 4, 8, 12])])
def test_thread_counts(cores: int, counts: list[int]) -> None:
    assert scaling.thread_counts(cores) == counts


def test_plots(tmp_path: Path) -> None:
    from plots import write_plots

    names = ("frame", "frame_graph", "instance_graph", "temporal_graph", "host", "decode")
    point = {f"{name}_ms": 1.0 for name in names}
    experiments = {"objects": [{"objects": 1, **point}, {"objects": 9, **point}],
                   "size": [{"width": 640, "height": 360, "fps": 9.0, **point}],
                   "length": [{"memory": "exact", "frame": 4, "objects_seen": 8, "frame_ms": 2.0}],
                   "streams": [{"streams": 1, "fps": 9.0}, {"streams": 2, "fps": 12.0}],
                   "threads": [{"threads": 1, "fps": 9.0}, {"threads": 2, "fps": 12.0}]}
    paths = write_plots(experiments, tmp_path, "a device")
    assert [path.name for path in paths] == [f"scaling-{name}.svg" for name in experiments]
    before = [path.read_bytes() for path in paths]
    labels = ("objects in every frame", "megapixels per frame", "objects ever seen", "videos at once",
              "CPU threads of the graphs")
    for content, label in zip(before, labels, strict=True):  # what its letters say is in comments
        assert all(f"<!-- {text} -->" in content.decode() for text in ("a device", label))
    assert [path.read_bytes() for path in write_plots(experiments, tmp_path, "a device")] == before


@pytest.mark.parametrize("args, told, code", [
    (["--bundle", "nowhere"], "nowhere does not exist", 2),
    (["--json", "nowhere/out.json"], "folder nowhere does not exist", 4),
])
def test_bad_input(args: list[str], told: str, code: int) -> None:
    done = CliRunner().invoke(scaling.main, args)
    assert (told in done.output, done.exit_code) == (True, code)


def test_plots_are_refused_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(scaling.main, ["--plots", str(tmp_path / "nowhere")])
    assert "nowhere does not exist; make it first" in done.output and done.exit_code == 4
    monkeypatch.setattr("plots.find_spec", lambda name: None)
    done = CliRunner().invoke(scaling.main, ["--plots", str(tmp_path)])
    assert "plots need matplotlib: pip install 'stmask-deploy[bench]'" in done.output and done.exit_code == 2
