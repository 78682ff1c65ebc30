"""What is measured: one backend at one precision on one bundle, frame by frame."""
from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.bundle import read_description
from stmask_deploy.errors import InputError
from stmask_deploy.runtime.backends import BACKENDS, PRECISIONS, Backend, Value
from stmask_deploy.runtime.loading import Bundle, open_bundle
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.output_folder import OutputFolder
from stmask_deploy.runtime.preprocess import preprocess
from stmask_deploy.runtime.run_writer import RunWriter
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.timing import StageTimer

TORCH = "torch"
NUM_BOXES = 10  # objects given to the temporal graph where it is measured alone


@dataclass(frozen=True)
class Row:
    """One line of a comparison."""

    backend: str  # torch | onnxruntime | openvino
    precision: str

    @classmethod
    def parse(cls, text: str) -> Row:
        """`backend:precision` -> Row.

        Raises:
            InputError: one of them is not known.
        """
        backend, _, precision = text.partition(":")
        if backend not in (TORCH, *BACKENDS) or precision not in PRECISIONS:
            raise InputError(f"row {text!r} is not known; give BACKEND:PRECISION with a backend of "
                             f"{', '.join((TORCH, *BACKENDS))} and a precision of {', '.join(PRECISIONS)}")
        return cls(backend, precision)

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"


@dataclass(frozen=True)
class Job:
    """A row with everything its process needs."""

    row: Row
    bundle: Path
    checkpoint: Path | None  # of the bundle; PyTorch reads it
    video: Path
    threads: int  # of the graphs
    conf: float  # score threshold
    graphs_only: bool


@dataclass(frozen=True)
class Sample:
    """One frame."""

    stages: Mapping[str, float]  # seconds; a stage that did not run is absent
    total: float  # seconds from before the frame was decoded to after it was encoded
    shown: int  # objects in the result
    tracked: int  # objects that went through the temporal graph


@contextmanager
def open_row(job: Job) -> Iterator[tuple[str, Iterator[Sample]]]:
    """Load the job's graphs. Gives what they run on, in words, and one sample a frame for as long as the video lasts.

    Raises:
        InputError: the bundle, the checkpoint or the video cannot be used.
        DeviceError: the backend is not installed, or would not compute in the precision asked for.
    """
    bundle = _open_torch(job) if job.row.backend == TORCH else open_bundle(
        job.bundle, job.row.backend, device="cpu", precision=job.row.precision, threads=job.threads)
    with closing((graph_samples if job.graphs_only else pipeline_samples)(bundle, job)) as samples:
        yield bundle.frame.device, samples


def _open_torch(job: Job) -> Bundle:
    if job.row.precision != "f32":
        raise InputError("PyTorch is measured in f32 only")
    if job.checkpoint is None:
        raise InputError("PyTorch reads the checkpoint of the bundle: give it with --checkpoint")
    import torch

    from stmask_deploy.export.torch_backend import torch_bundle
    from stmask_deploy.models.checkpoint import load_checkpoint

    torch.set_num_threads(job.threads)
    description = read_description(job.bundle)
    checkpoint = replace(load_checkpoint(job.checkpoint, description.checkpoint_sha256), config=description.model)
    return torch_bundle(checkpoint.build(), description)


def pipeline_samples(bundle: Bundle, job: Job) -> Generator[Sample, None, None]:
    """Every frame as `stmask-run` treats it: decoded, tracked, written as JSON, drawn and encoded."""
    timer = StageTimer()
    counter = None if bundle.temporal is None else BoxCounter(bundle.temporal)
    model = Model(replace(bundle, temporal=counter), RunOptions(score_threshold=job.conf), timer)
    with tempfile.TemporaryDirectory() as folder, open_source(job.video) as source, \
            RunWriter(model, source, OutputFolder(Path(folder)), draw=True, draw_threshold=0.0) as writer:
        frames = iter(source)
        while True:
            start = time.perf_counter()
            with timer.stage("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            result = model.step(frame.image, frame.time_s)
            writer.write(frame, result)
            total = time.perf_counter() - start
            timer.end_frame()
            yield Sample(timer.frames.pop(), total, len(result), counter.take() if counter else 0)


def graph_samples(bundle: Bundle, job: Job) -> Generator[Sample, None, None]:
    """The graphs alone: the frame graph on every frame, the temporal graph with `NUM_BOXES` boxes between two."""
    timer = StageTimer()
    boxes = np.random.default_rng(0).uniform(0, 0.7, (NUM_BOXES, 2)).astype(np.float32)
    boxes = np.concatenate([boxes, boxes + np.float32(0.25)], axis=1)
    with open_source(job.video) as source:
        for previous, outputs in pairwise(_frame_outputs(bundle, (frame.image for frame in source), timer)):
            if bundle.temporal is not None:
                feeds = {"prev_fpn": previous["fpn"], "fpn": outputs["fpn"], "prev_temporal": previous["temporal"],
                         "temporal": outputs["temporal"], "boxes": boxes}
                with timer.stage("temporal_graph"):
                    bundle.temporal.run(feeds)
            timer.end_frame()
            stages = timer.frames.pop()
            yield Sample(stages, sum(stages.values()), 0, NUM_BOXES if bundle.temporal else 0)


def _frame_outputs(bundle: Bundle, images: Iterator[NDArray[np.uint8]],
                   timer: StageTimer) -> Iterator[dict[str, NDArray[Any]]]:
    for image in images:
        prepared, _ = preprocess(image, bundle.description.model)
        with timer.stage("frame_graph"):
            outputs = bundle.frame.run({"frame": prepared})
        yield outputs


class BoxCounter:
    """A temporal graph that remembers how many boxes it was given."""

    def __init__(self, graph: Backend) -> None:
        self.metadata, self.device = graph.metadata, graph.device
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.input_names, self.output_names = graph.input_names, graph.output_names
        self._graph = graph
        self._count = 0

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        self._count += len(inputs["boxes"])
        return self._graph.run(inputs, outputs, keep)

    def take(self) -> int:
        """Boxes since the last call."""
        count, self._count = self._count, 0
        return count
