"""ONNX Runtime's execution providers: their selection and the options they are opened with."""
from __future__ import annotations

import io
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from stmask_deploy.errors import DeviceError

from .backends import CUDA_GRAPH
from .model_cache import make_cache

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
WORDS = {CUDA: "CUDA", TENSORRT: "TensorRT"}
_DEVICES = {"cpu": CPU, "cuda": CUDA, CUDA_GRAPH: CUDA, "tensorrt": TENSORRT}
_CURES = {CUDA: "install stmask-deploy[cuda] instead of stmask-deploy[cpu], or use cpu",
          TENSORRT: "install stmask-deploy[cuda] and TensorRT 10, or use cuda"}


def choose_provider(ort: Any, device: str) -> tuple[str, str]:
    """The execution provider for `device`, and a note about the choice for the device description.

    Args:
        ort: the package onnxruntime.
        device: auto | cpu | cuda | cuda-graph | tensorrt.

    Raises:
        DeviceError: this ONNX Runtime was built without the provider.
    """
    available = ort.get_available_providers()
    if device == "auto":  # never TensorRT, which takes minutes to build an engine
        provider, note = CUDA if CUDA in available else CPU, " (chosen by auto)"
    else:
        provider, note = _DEVICES[device], ""
        if provider != CPU and provider not in available:
            raise DeviceError(f"device {device} is not available in this ONNX Runtime {ort.__version__}; available: "
                              f"{', '.join(available)}; {_CURES[provider]}")
    if provider != CPU:
        # What fails is raised as well; this is the log of the whole process, not of a session.
        ort.set_default_logger_severity(4)
        load_cuda(ort)
    return provider, note


@cache
def load_cuda(ort: Any) -> str:
    """Load CUDA and cuDNN from pip's install location, which ONNX Runtime does not do by itself.

    Args:
        ort: the package onnxruntime.

    Returns:
        What could not be loaded, on one line of at most 300 characters; empty if nothing is missing.
    """
    with redirect_stdout(io.StringIO()) as said:  # failures are printed, not raised
        ort.preload_dlls()
    return " ".join(said.getvalue().split())[:300]


def provider_options(provider: str, precision: str, cache: Path | None,
                     stream: int | None = None) -> list[tuple[str, dict[str, str]]]:
    """The providers to open a session with, and their options: the chosen one, then its fallbacks for single nodes.

    Args:
        provider: from `choose_provider`.
        precision: f32 | f16 | int8.
        cache: folder for TensorRT's engines; None keeps none.
        stream: address of the CUDA stream to compute in; None for one of its own.

    Raises:
        InputError: the folder `cache` cannot be created.
    """
    chosen: list[tuple[str, dict[str, str]]] = []
    if provider == TENSORRT:
        chosen.append((TENSORRT, _tensorrt_options(precision, cache)))
    if provider in (TENSORRT, CUDA):
        place = {} if stream is None else {"user_compute_stream": str(stream)}
        chosen.append((CUDA, _cuda_options(precision) | place))
    return [*chosen, (CPU, {})]


def skipped_optimizers(provider: str) -> list[str]:
    """Names of ONNX Runtime's optimisations that do harm with `provider`, for `InferenceSession`."""
    # This one makes a Split of slices. For a Split into unequal parts, as of ONNX Runtime 1.31, CUDA copies four small
    # tables from the host in every run; slices need none.
    return [] if provider == CPU else ["GatherSliceToSplitFusion"]


def _cuda_options(precision: str) -> dict[str, str]:
    options = {
        # TF32 would round the convolutions' inputs to 10 mantissa bits, but f32 was requested.
        "use_tf32": "0",
        # Benchmarks all kernels in the first run only: shapes never change within a session.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        # Some of the fastest kernels need more than the default 32 MB.
        "cudnn_conv_use_max_workspace": "1",
        # Memory grows by what is needed, not to the next power of two: other programs use the GPU too.
        "arena_extend_strategy": "kSameAsRequested",
        # Copies only wait for the session's own work.
        "do_copy_in_default_stream": "1",
    }
    if precision == "f16":
        # Without TF32, ONNX Runtime does not use tensor cores for f16 convolutions either. The f32 parts of f16 graphs
        # are written to tolerate TF32, see `export.half`. cuDNN's heuristic finds f16 kernels as fast as benchmarking.
        # NHWC is the layout of tensor cores; cuDNN can then fuse the bias.
        options |= {"use_tf32": "1", "cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "1", "fuse_conv_bias": "1"}
    return options


def _tensorrt_options(precision: str, cache: Path | None) -> dict[str, str]:
    options = {"trt_fp16_enable": "1" if precision == "f16" else "0"}
    if cache is not None:
        folder = make_cache(cache)
        # Building an engine takes minutes. It is only valid for this GPU and version, which its name contains.
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder),
                    "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder)}
    return options
