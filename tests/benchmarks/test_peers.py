"""Figures and table from turns made up, and one short real run."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner
from peer_subjects import MAPS, NUM_ROWS, PeerJob, PeerTurn, example_feeds, open_peer, pipeline_outputs
from peers import REFERENCE, _figures, all_jobs, main, measure, table
from rtmdet_peer import build_rtmdet

from stmask_deploy.bundle import FRAME_INPUTS, TEMPORAL_INPUTS, TEMPORAL_OUTPUTS, read_description
from stmask_deploy.pretrained import demo_bundle, demo_checkpoint
from stmask_deploy.runtime.loading import open_bundle


def row(name: str, frame: float, gflop: float | None = None, temporal: float | None = None) -> dict[str, Any]:
    turns = [PeerTurn((frame, frame), () if temporal is None else (temporal,))]
    return {"row": name, "device": "", "peak_mb": 120.4, "gflop": gflop, **_figures(turns)}


def test_table() -> None:
    rows = [row(REFERENCE, 0.5, 100.0, 0.02), row("bundle", 0.25, 75.0), {"row": "gone", "not_available": "no IR"}]
    assert table(rows) == """\
| row | frame p50 / p90 | times PyTorch | GFLOP/s | temporal p50 / p90 | peak MB |
|---|---:|---:|---:|---:|---:|
| PyTorch eager, f32 | 500.0 / 500.0 | 1.00 | 200 | 20.0 / 20.0 | 120 |
| bundle | 250.0 / 250.0 | 2.00 | 300 | - | 120 |

gone: not available: no IR"""


class TurnTaker:
    """In the place of a `Worker`: notes whose turn it is."""

    order: ClassVar[list[str]] = []

    def __init__(self, _opener: object, job: PeerJob) -> None:
        self.facts, self.reason, self.peak_bytes = {"device": "none"}, "", None
        self._name = job.name

    def turn(self) -> PeerTurn:
        self.order.append(self._name)
        return PeerTurn((0.5,), ())

    def __enter__(self) -> TurnTaker:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_every_second_round_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peers.Worker", TurnTaker)
    jobs = [PeerJob(name, "bundle", "", "f32", Path(), Path(), None, None, False, "cpu", 1, 1) for name in "abc"]
    rows = measure(jobs, 3, {"a": 1.5})
    assert "".join(TurnTaker.order) == "abc" "cba" "abc"
    assert [(row["row"], row["gflop"], row["frame_turns"]) for row in rows] == [
        ("a", 1.5, [[0.5]] * 3), ("b", None, [[0.5]] * 3), ("c", None, [[0.5]] * 3)]


def test_without_pytorch_nothing_is_compared() -> None:
    assert "| bundle | 250.0 / 250.0 | - | - | - | 120 |" in table([row("bundle", 0.25)])


def test_feeds_and_outputs_are_the_bundles() -> None:
    bundle = open_bundle(demo_bundle(), threads=1)
    feeds = example_feeds(bundle.description)
    assert (set(feeds["frame"]), set(feeds["temporal"])) == (set(FRAME_INPUTS), set(TEMPORAL_INPUTS))
    assert bundle.temporal is not None
    assert len(bundle.temporal.run(feeds["temporal"])["box_deltas"]) == 10
    names = pipeline_outputs(bundle.description)
    assert ("mask_coeffs" in names) == (bundle.instances is None)
    assert list(bundle.frame.run(feeds["frame"], names)) == list(names)


def test_rows_of_a_gpu(tmp_path: Path) -> None:
    jobs = all_jobs(demo_checkpoint(), demo_bundle(), tmp_path, "cuda", 2, 1)
    places = {job.name: (job.precision, job.device) for job in jobs}
    assert places["bundle, ONNX Runtime f16, CUDA graphs"] == ("f16", "cuda-graph")
    assert places["bundle, ONNX Runtime f16"] == places["PyTorch compile, f16"] == ("f16", "cuda")
    assert places["PyTorch compile, f16, CUDA graphs"] == ("f16", "cuda")
    assert not [name for name in places if "OpenVINO" in name or "bf16" in name]


@pytest.mark.parametrize("kind, backend, precision", [("bundle", "onnxruntime", "f32"), ("torch", "eager", "f32"),
                                                      ("torch", "eager", "bf16")])
def test_every_way_runs_the_same_network(kind: str, backend: str, precision: str) -> None:
    job = PeerJob("", kind, backend, precision, demo_bundle(), demo_checkpoint(), None, None, False, "cpu", 1, 1)
    with open_peer(job) as peer:
        found = {role: run(feeds) for role, (run, feeds) in peer._graphs.items()}
    description = read_description(demo_bundle())
    if kind == "bundle":
        frame, temporal = found["frame"], found["temporal"]
        assert frame["mask_coeffs"].shape == (NUM_ROWS, description.model.num_prototypes)  # of the instance graph
    else:
        names = description.tensor_names("frame")[1]
        frame = dict(zip([name for name in names if name not in MAPS], found["frame"], strict=True))
        temporal = dict(zip(TEMPORAL_OUTPUTS, found["temporal"], strict=True))
    expected = open_bundle(demo_bundle(), threads=1).frame.run(example_feeds(description)["frame"])
    difference = np.abs(frame["prototypes"] - expected["prototypes"]).mean() / expected["prototypes"].mean()
    assert (difference > 1e-4) == (precision == "bf16") and difference < 0.05
    assert temporal["box_deltas"].shape == (10, 4)


@pytest.mark.slow
def test_rows_run_and_those_that_cannot_say_why(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = CliRunner().invoke(main, ["--only", "bundle, ONNX", "--only", "sliced", "--runs", "1", "--rounds", "1",
                                     "--threads", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    bundle, sliced = json.loads(out.read_text())["rows"]
    assert bundle["frame_ms"]["p50"] > 0 and bundle["gflop"] > 1 and len(bundle["temporal_turns"][0]) == 1
    assert "frame_ms" not in sliced and sliced["temporal_ms"]["p50"] > 0


@pytest.mark.parametrize("args, told", [
    (["nowhere.pth"], "nowhere.pth"),
    (["--bundle", "nowhere"], "nowhere does not exist"),
])
def test_bad_input(args: list[str], told: str) -> None:
    done = CliRunner().invoke(main, args)
    assert (told in done.output, done.exit_code) == (True, 2)


def test_another_checkpoints_bundle(tmp_path: Path) -> None:
    from tiny_bundles import write_bundle

    done = CliRunner().invoke(main, [str(demo_checkpoint()), "--bundle", str(write_bundle(tmp_path / "bundle"))])
    assert done.exit_code == 2
    assert "was not exported from" in done.output


def test_rtmdet_says_how_to_get_it() -> None:
    try:
        network = build_rtmdet()
    except ImportError as error:
        assert "pip install --no-deps libreyolo" in str(error)
    else:
        assert sum(one.numel() for one in network.parameters()) > 1e7
