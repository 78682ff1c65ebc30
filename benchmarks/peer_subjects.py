"""The subjects of `peers.py`: different ways to run a frame network and, optionally, a temporal graph."""
from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stmask_deploy.bench.ceiling import CeilingJob, PlainRunner
from stmask_deploy.bundle import (
    INSTANCE_MAPS,
    PROTOTYPE_INPUTS,
    TEMPORAL_INPUTS,
    TEMPORAL_MAPS,
    BundleDescription,
    read_description,
)
from stmask_deploy.runtime.loading import open_bundle, run_outputs

NUM_BOXES = 10  # objects in the temporal graph's input
NUM_ROWS = 20  # rows in the instance graph's input: detections that NMS keeps in a crowded frame
# Frame graph outputs that stay on the GPU, as in a run.
MAPS = PROTOTYPE_INPUTS + INSTANCE_MAPS + TEMPORAL_MAPS

Feeds = dict[str, Any]
Run = Callable[[Feeds], Any]


@dataclass(frozen=True)
class PeerJob:
    """One row of the table, with everything its process needs."""

    name: str
    kind: str  # bundle | torch | file | rtmdet
    backend: str  # bundle and file: its name; torch and rtmdet: eager | compile | reduce-overhead (with CUDA graphs)
    precision: str
    bundle: Path  # provides the sizes
    checkpoint: Path  # for PyTorch
    frame: Path | None  # a graph that is not a bundle's, for kind file
    temporal: Path | None
    channels_last: bool
    device: str  # cpu | cuda; for bundle as in `open_bundle`
    threads: int
    runs: int  # per graph and turn


@dataclass(frozen=True)
class PeerTurn:
    """Seconds of every run."""

    frame: tuple[float, ...]
    temporal: tuple[float, ...]  # empty if there is no temporal graph


class Peer:
    """A `Subject`: each turn runs every graph several times. Inputs and outputs are arrays, except maps on a GPU."""

    def __init__(self, job: PeerJob, graphs: Mapping[str, tuple[Run, Feeds]], device: str) -> None:
        self.facts: Mapping[str, Any] = {"device": device}
        self._job, self._graphs = job, graphs

    def turn(self) -> PeerTurn:
        """See `Subject.turn`."""
        return PeerTurn(**{role: tuple(self._timed(role)) for role in ("frame", "temporal")})

    def _timed(self, role: str) -> list[float]:
        if role not in self._graphs:
            return []
        run, feeds = self._graphs[role]
        seconds = []
        for _ in range(self._job.runs + 1):
            start = time.perf_counter()
            run(feeds)
            seconds.append(time.perf_counter() - start)
        return seconds[1:]  # the first run is warm-up


@contextmanager
def open_peer(job: PeerJob) -> Iterator[Peer]:
    """Load the job's graphs and run each once.

    Raises:
        StmaskError: it cannot be loaded.
        ImportError: a package it needs is not installed.
    """
    openers = {"bundle": _open_bundle, "torch": _open_torch, "file": _open_file, "rtmdet": _open_rtmdet}
    graphs, device = openers[job.kind](job)
    for run, feeds in graphs.values():
        run(feeds)
    yield Peer(job, graphs, device)


def example_feeds(description: BundleDescription) -> dict[str, Feeds]:
    """Inputs of the frame and the temporal graph; the amount of computation does not depend on their values."""
    rng = np.random.default_rng(0)
    model = description.model
    feeds: dict[str, Feeds] = {"frame": {"frame": rng.integers(0, 256, (1, *model.input_size, 3), dtype=np.uint8)}}
    if model.temporal is not None:
        size = model.level_sizes[model.temporal.level]
        widths = {"fpn": model.fpn_width, "temporal": model.head_width}
        maps = {prefix + name: rng.random((1, width, *size), dtype=np.float32)
                for name, width in widths.items() for prefix in ("prev_", "")}
        corners = rng.random((NUM_BOXES, 2), dtype=np.float32) * np.float32(0.7)
        feeds["temporal"] = {**maps, "boxes": np.concatenate([corners, corners + np.float32(0.25)], axis=1)}
    return feeds


def pipeline_outputs(description: BundleDescription) -> tuple[str, ...]:
    """The frame graph's outputs in a run in which objects fill the frame, so that all prototypes are computed."""
    return run_outputs(description, [role for role in description.roles if role != "prototypes"])


def _open_bundle(job: PeerJob) -> tuple[dict[str, tuple[Run, Feeds]], str]:
    bundle = open_bundle(job.bundle, job.backend, device=job.device, precision=job.precision, threads=job.threads)
    outputs, feeds = pipeline_outputs(bundle.description), example_feeds(bundle.description)

    def run(given: Feeds) -> Mapping[str, Any]:
        found = bundle.frame.run(given, outputs, keep=MAPS)
        if bundle.instances is not None:
            rows = np.sort(found["anchor_index"][:NUM_ROWS])
            found |= bundle.instances.run({"shared": found["shared"], "anchor_index": rows})
        return found

    graphs: dict[str, tuple[Run, Feeds]] = {"frame": (run, feeds["frame"])}
    if bundle.temporal is not None:
        found = run(feeds["frame"])
        maps = {prefix + name: found[name] for prefix in ("prev_", "") for name in TEMPORAL_MAPS}
        graphs["temporal"] = (bundle.temporal.run, {**maps, "boxes": feeds["temporal"]["boxes"]})
    return graphs, bundle.frame.device


def _open_file(job: PeerJob) -> tuple[dict[str, tuple[Run, Feeds]], str]:
    runner = PlainRunner(CeilingJob(job.backend, job.precision, job.device, job.threads))
    feeds = example_feeds(read_description(job.bundle))
    graphs = {role: (runner.load(path), feeds[role])
              for role, path in (("frame", job.frame), ("temporal", job.temporal)) if path is not None}
    return graphs, f"{job.backend}, {job.precision}"


def _open_torch(job: PeerJob) -> tuple[dict[str, tuple[Run, Feeds]], str]:
    import torch

    from stmask_deploy.export.frame_graph import FrameGraph
    from stmask_deploy.export.temporal_graph import TemporalGraph
    from stmask_deploy.models.checkpoint import load_checkpoint

    description = read_description(job.bundle)
    model = load_checkpoint(job.checkpoint, description.checkpoint_sha256).build()
    feeds = example_feeds(description)
    frame = FrameGraph(model, description.model, description.max_candidates, description.candidate_threshold)
    names = description.tensor_names("frame")[1]
    staying = [number for number, name in enumerate(names) if name in MAPS]
    graphs = {"frame": (_torch_run(job, frame, ("frame",), staying), feeds["frame"])}
    if "temporal" in feeds:
        given = {name: torch.from_numpy(value).to(job.device) for name, value in feeds["temporal"].items()}
        graphs["temporal"] = (_torch_run(job, TemporalGraph(model), TEMPORAL_INPUTS), given)
    return graphs, _torch_words(job)


def _open_rtmdet(job: PeerJob) -> tuple[dict[str, tuple[Run, Feeds]], str]:
    from rtmdet_peer import build_rtmdet

    height, width = read_description(job.bundle).model.padded_size
    picture = np.random.default_rng(0).standard_normal((1, 3, height, width), dtype=np.float32)
    if job.frame is None:
        return {"frame": (_torch_run(job, build_rtmdet(), ("x",), None), {"x": picture})}, _torch_words(job)
    if not job.frame.exists():
        build_rtmdet()  # raises the reason why it was not exported
    runner = PlainRunner(CeilingJob(job.backend, job.precision, job.device, job.threads))
    return {"frame": (runner.load(job.frame), {"x": picture})}, f"{job.backend}, {job.precision}"


def _torch_run(job: PeerJob, module: Any, names: tuple[str, ...], staying: Collection[int] | None = ()) -> Run:
    """A function that runs `module` and copies its outputs to the host, except indices in `staying` (None: all)."""
    import torch

    halves = {"bf16": torch.bfloat16, "f16": torch.float16}
    torch.set_num_threads(job.threads)
    # Same conditions as for the bundle on a GPU: f32 without TF32, and a search for the fastest convolutions.
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = False, True
    module = module.eval().to(job.device)
    if job.channels_last:
        module = module.to(memory_format=torch.channels_last)
    modes = {"compile": None, "reduce-overhead": "reduce-overhead"}
    called = torch.compile(module, mode=modes[job.backend]) if job.backend in modes else module

    def run(feeds: Feeds) -> list[Any]:
        given = [torch.as_tensor(feeds[name], device=job.device) for name in names]
        if job.channels_last:
            given = [value.to(memory_format=torch.channels_last) if value.dim() == 4 and value.is_floating_point()
                     else value for value in given]
        rounded = torch.autocast(job.device, halves[job.precision]) if job.precision in halves else nullcontext()
        with torch.no_grad(), rounded:
            found = list(_tensors(called(*given)))
        arrays = [value.float().cpu().numpy() for number, value in enumerate(found)
                  if staying is not None and number not in staying]
        if job.device == "cuda":
            torch.cuda.synchronize()  # outputs that stay on the GPU are computed asynchronously
        return arrays

    return run


def _tensors(found: Any) -> Iterator[Any]:
    """Yield all tensors in nested tuples and lists."""
    if isinstance(found, (tuple, list)):
        for one in found:
            yield from _tensors(one)
    else:
        yield found


def _torch_words(job: PeerJob) -> str:
    import torch

    layout = ", channels last" if job.channels_last else ""
    return f"PyTorch {torch.__version__} {job.backend}, {job.precision}{layout}, {job.device}, {job.threads} threads"
