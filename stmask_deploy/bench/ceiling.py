"""Peak convolution throughput of the backend on this machine, as an upper bound for real graphs."""
from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stmask_deploy.errors import DeviceError
from stmask_deploy.runtime.backends import one_line
from stmask_deploy.runtime.onnxruntime_providers import CPU, choose_provider
from stmask_deploy.runtime.onnxruntime_session import SessionMaker
from stmask_deploy.runtime.openvino_backend import choose_plugins, shared_core

from .convolution_chain import ConvolutionChain

DEPTH = 3  # convolutions on a CPU, 14 GFLOP
DEPTH_ON_GPU = 48  # long enough to make per-run overhead negligible
_WARMUP, _RUNS = 1, 3  # per turn

Run = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class CeilingJob:
    """Rows that agree in all of these share a ceiling."""

    backend: str
    precision: str
    device: str
    threads: int | None

    def __str__(self) -> str:
        return ":".join([self.backend, self.precision, *([self.device] if self.device != "auto" else [])])


class Ceiling:
    """A `Subject`: each turn returns the seconds of several runs of the chain."""

    def __init__(self, chain: ConvolutionChain, run: Run) -> None:
        self.facts: Mapping[str, Any] = {"flops": chain.flops}
        self._chain, self._run = chain, run

    def turn(self) -> list[float]:
        """See `Subject.turn`."""
        feeds = {"start": self._chain.start}
        for _ in range(_WARMUP):
            self._run(feeds)
        seconds = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            self._run(feeds)
            seconds.append(time.perf_counter() - start)
        return seconds


@contextmanager
def open_ceiling(job: CeilingJob) -> Iterator[Ceiling]:
    """Build the chain and load it with the runtime's settings.

    Raises:
        DeviceError: the backend is not installed or does not support the device.
    """
    with tempfile.TemporaryDirectory() as folder:
        runner = PlainRunner(job)
        chain = ConvolutionChain(DEPTH_ON_GPU if runner.is_on_gpu else DEPTH, job.precision)
        path = Path(folder) / "chain.onnx"
        path.write_bytes(chain.to_onnx())
        run = runner.load(path)
    yield Ceiling(chain, run)


class PlainRunner:
    """Loads arbitrary models, not only a bundle's, with the runtime's settings but without its graph transformations.

    Attributes:
        is_on_gpu: whether they run on a GPU.

    Raises:
        DeviceError: the backend is not installed or does not support the device.
    """

    def __init__(self, job: CeilingJob) -> None:
        self._job = job
        if job.backend == "openvino":
            self._core = shared_core()
            self.is_on_gpu = choose_plugins(self._core, job.device, job.precision)[0] != "CPU"
        else:
            import onnxruntime

            self._provider, _ = choose_provider(onnxruntime, "cpu" if job.precision == "int8" else job.device)
            self.is_on_gpu = self._provider != CPU

    def load(self, path: Path) -> Run:
        """A function that maps inputs by name to outputs, for the model in a file (.onnx, or .xml for OpenVINO)."""
        return self._load_openvino(path) if self._job.backend == "openvino" else self._load_onnxruntime(path)

    def _load_openvino(self, path: Path) -> Run:
        import openvino

        job = self._job
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if job.precision != "int8":  # the float part of an int8 model is left to OpenVINO
            settings["INFERENCE_PRECISION_HINT"] = getattr(openvino.Type, job.precision)
        if job.threads is not None and not self.is_on_gpu:
            settings["INFERENCE_NUM_THREADS"] = job.threads
        try:
            model = self._core.read_model(path)
            compiled = self._core.compile_model(model, "GPU" if self.is_on_gpu else "CPU", settings)
        except RuntimeError as error:
            raise DeviceError(f"OpenVINO does not run {path.name} ({one_line(error)})") from error
        request = compiled.create_infer_request()
        return lambda feeds: request.infer(dict(feeds), share_inputs=True, share_outputs=True)

    def _load_onnxruntime(self, path: Path) -> Run:
        import onnxruntime

        maker = SessionMaker(onnxruntime, path, self._provider, self._job.precision, self._job.threads, None)
        session = maker.open()
        return lambda feeds: session.run(None, dict(feeds))
