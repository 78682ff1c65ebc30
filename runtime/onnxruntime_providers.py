"""Which part of ONNX Runtime computes: its execution providers, with every option that is set and why."""
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
    """The execution provider for `device`, and what there is to say about the choice.

    Args:
        ort: the package onnxruntime.
        device: auto | cpu | cuda | cuda-graph | tensorrt.

    Raises:
        DeviceError: this ONNX Runtime was built without it.
    """
    available = ort.get_available_providers()
    if device == "auto":  # TensorRT builds an engine for minutes, which is nothing to do unasked
        provider, note = CUDA if CUDA in available else CPU, " (chosen by auto)"
    else:
        provider, note = _DEVICES[device], ""
        if provider != CPU and provider not in available:
            raise DeviceError(f"device {device} is not available in this ONNX Runtime {ort.__version__}; available: "
                              f"{', '.join(available)}; {_CURES[provider]}")
    if provider != CPU:
        load_cuda(ort)
    return provider, note


@cache
def load_cuda(ort: Any) -> str:
    """Load CUDA and cuDNN from where pip installs them, which ONNX Runtime does not do by itself.

    Args:
        ort: the package onnxruntime.

    Returns:
        What could not be loaded, in one line; empty where nothing was missing.
    """
    with redirect_stdout(io.StringIO()) as said:  # failures are printed and not raised
        ort.preload_dlls()
    return " ".join(said.getvalue().split())[:300]


def provider_options(provider: str, precision: str, cache: Path | None, is_recorded: bool = False,
                     channels_last: bool = True) -> list[tuple[str, dict[str, str]]]:
    """What a session is opened with: the provider, and those that take what it does not.

    Args:
        provider: of `choose_provider`.
        precision: f32 | f16 | int8.
        cache: folder for TensorRT's engines; None keeps none.
        is_recorded: CUDA is to record its kernels' launches at the first run, and to replay them.
        channels_last: CUDA may arrange the maps of f16 as tensor cores read them.

    Raises:
        InputError: the folder `cache` cannot be made.
    """
    chosen: list[tuple[str, dict[str, str]]] = []
    if provider == TENSORRT:
        chosen.append((TENSORRT, _tensorrt_options(precision, cache)))
    if provider in (TENSORRT, CUDA):
        recording = {"enable_cuda_graph": "1"} if is_recorded else {}
        chosen.append((CUDA, _cuda_options(precision, channels_last) | recording))
    return [*chosen, (CPU, {})]


def _cuda_options(precision: str, channels_last: bool) -> dict[str, str]:
    options = {
        # Would round the convolutions' inputs to 10 bits, which is not the f32 that was asked for.
        "use_tf32": "0",
        # Every kernel is tried at the first run. Sizes never change within a session, so that is done once.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        # Some of the fastest kernels need more than the 32 MB they would be given.
        "cudnn_conv_use_max_workspace": "1",
        # Memory grows by what is needed, not to the next power of two: other programs use the GPU too.
        "arena_extend_strategy": "kSameAsRequested",
        # Copies wait for nothing but the session's own work.
        "do_copy_in_default_stream": "1",
    }
    if precision == "f16":
        # Without TF32 ONNX Runtime keeps tensor cores from convolutions of f16 too. What those graphs keep in f32 is
        # written for it, see `export.half`. cuDNN guesses kernels of f16 that are as fast as those that trials find.
        options |= {"use_tf32": "1", "cudnn_conv_algo_search": "HEURISTIC"}
        if channels_last:  # as tensor cores read them; cuDNN then adds the bias on the way
            options |= {"prefer_nhwc": "1", "fuse_conv_bias": "1"}
    return options


def _tensorrt_options(precision: str, cache: Path | None) -> dict[str, str]:
    options = {"trt_fp16_enable": "1" if precision == "f16" else "0"}
    if cache is not None:
        folder = make_cache(cache)
        # Building an engine takes minutes. It is only good for this GPU and this version, which its name tells.
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder),
                    "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder)}
    return options
