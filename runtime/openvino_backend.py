"""Graphs in OpenVINO, on the CPU or on an Intel GPU."""
from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from stmask_deploy.bundle import (
    FRAME_INPUTS,
    FRAME_OUTPUTS,
    METADATA_KEY,
    PROTOTYPE_INPUTS,
    TEMPORAL_INPUTS,
    TEMPORAL_OUTPUTS,
    BundleDescription,
    weights_mark,
)
from stmask_deploy.errors import DeviceError, InputError, StmaskError
from stmask_deploy.openvino_library import import_openvino
from stmask_deploy.wrapped_interrupt import raise_interrupt

from .backends import TensorSpec, Value, check_inputs, chosen_outputs, not_installed, one_line
from .model_cache import held_cache, make_cache
from .openvino_pooling import expand_roi_align
from .openvino_precision import is_kept, kept_for
from .openvino_sampling import expand_deformable, keep_grids
from .openvino_tuning import tuning
from .openvino_winograd import convolutions_to_expand, expand_convolutions
from .row_padding import RowPadding, within_an_eighth
from .weight_files import WeightFiles

_NAMES = frozenset(FRAME_INPUTS + FRAME_OUTPUTS + TEMPORAL_INPUTS + TEMPORAL_OUTPUTS)


class OpenVinoBackend:
    """A `Backend` on an OpenVINO compiled model; the arguments are those of `opening.open_backend`.

    The number of objects is padded, by an eighth at most, because the plugin keeps what it has prepared for every
    number that occurred: on a CPU 5 MB for R50's temporal graph and 1 MB for its instance graph. On a GPU, which
    prepares for every shape too, this was not measured.
    """

    def __init__(self, graph: Path, *, device: str, precision: str, threads: int | None, cache: Path | None,
                 outputs: Collection[str] | None) -> None:
        ov = _import_library()
        core = shared_core()
        plugins = choose_plugins(core, device, precision)
        self._weights = WeightFiles()
        model = _read(core, graph, self._weights)
        if not model.has_rt_info(METADATA_KEY):
            raise InputError(f"{graph} was not exported by this tool (it carries no description); use stmask-export")
        self.metadata = BundleDescription.from_json(model.get_rt_info(METADATA_KEY).astype(str),
                                                    f"the description in {graph}")
        _check_weights(graph.with_suffix(".bin"), self.metadata.export_id)
        note = " (chosen by auto)" if device == "auto" else ""
        for plugin in plugins:
            # 8-bit layers are marked in the graph. All others use the device's own choice: bf16 on a CPU that has it,
            # where in f32 they would be the slowest part.
            arithmetic = _own_precision(core, plugin) if precision == "int8" else precision
            if plugin == "CPU":
                _adapt(model, arithmetic)
            self._compile = partial(_compile, ov, core, graph=graph, plugin=plugin, precision=arithmetic,
                                    threads=threads, cache=cache)
            part = model if outputs is None else _part(model, outputs)
            whole = None  # the model with its largest inputs, where that makes it faster
            tuned = tuning(core, arithmetic) if plugin == "CPU" else None
            if tuned is not None:
                whole = _whole(part, self.metadata, arithmetic)
                # After pruning, so that unused layers get no new weights.
                expand_convolutions(part, arithmetic, tuned.columns, self._weights.constant)
            try:
                compiled = self._compile(part)
                break
            except StmaskError as error:
                if plugin == plugins[-1]:
                    raise
                note = f" ({error})"
        self._weights.release()
        self.inputs: Mapping[str, TensorSpec] = {_name(port): _spec(port) for port in compiled.inputs}
        self.outputs: Mapping[str, TensorSpec] = {_name(port): _spec(port) for port in compiled.outputs
                                                 if not is_kept(_name(port))}
        self._padding = RowPadding(self.inputs, self.outputs, within_an_eighth)
        self.is_on_host = plugin == "CPU"
        self.whole_from = inf if whole is None or tuned is None else tuned.whole_from
        self._largest = {} if whole is None else {_name(port): tuple(port.shape) for port in whole.inputs}
        self._model, self._whole, self._arithmetic, self._tuning = part, whole, arithmetic, tuned
        self._parts = {(frozenset(self.outputs), False): _Requests(compiled)}
        self._lock = Lock()
        version = ov.get_version().split("-")[0]
        used = "CPU" if plugin == "CPU" else core.get_property(plugin, "FULL_DEVICE_NAME")
        count = f", {compiled.get_property('INFERENCE_NUM_THREADS')} threads" if plugin == "CPU" else ""
        words = f"int8 and {arithmetic}" if precision == "int8" else precision
        self.device = f"OpenVINO {version}, {words}, {used}{count}{note}"

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        names = chosen_outputs(self.outputs, outputs)
        check_inputs(self.inputs, inputs)
        if not names:
            return {}
        is_whole = bool(self._largest) and all(np.shape(inputs[name]) == self._largest[name] for name in self.inputs)
        requests = self._requests_for(names, is_whole)
        try:
            with requests.borrowed() as request:
                # Inputs are only read during the call, so they need no copy; outputs must stay valid after the next.
                values = request.infer(self._padding.padded(inputs), share_inputs=True, share_outputs=False)
        except (RuntimeError, TypeError, ValueError) as error:
            raise StmaskError(f"OpenVINO failed in the graph: {one_line(error)}") from error
        finally:
            self._weights.release()
        return self._padding.cut({name: np.asarray(values[requests.outputs.index(name)]) for name in names}, inputs)

    def _requests_for(self, names: tuple[str, ...], is_whole: bool = False) -> _Requests:
        with self._lock:
            outputs = frozenset(names)
            if (outputs, is_whole) not in self._parts:
                part = _part(self._whole if is_whole else self._model, outputs)
                if is_whole and self._tuning is not None:
                    expand_convolutions(part, self._arithmetic, self._tuning.columns, self._weights.constant)
                self._parts[outputs, is_whole] = _Requests(self._compile(part))
            return self._parts[outputs, is_whole]


def _adapt(model: Any, arithmetic: str) -> None:
    """Replace, in place, what the CPU plugin computes slowly or inaccurately in this precision."""
    expand_roi_align(model)
    expand_deformable(model, only_int8=arithmetic != "bf16")
    if arithmetic == "bf16":
        keep_grids(model)


def _part(model: Any, outputs: Collection[str]) -> Any:
    """The part of `model` that these outputs depend on, with the same values kept in f32."""
    import openvino

    part = openvino.Model([port.node for port in model.outputs if _name(port) in outputs], model.get_parameters(),
                          model.get_friendly_name())
    part.add_results(kept_for(model, part))
    return part


class _Requests:
    """A pool of infer requests of one compiled model, one per concurrent thread."""

    def __init__(self, compiled: Any) -> None:
        self.outputs = [_name(port) for port in compiled.outputs]
        self._compiled = compiled
        self._idle: list[Any] = [compiled.create_infer_request()]
        self._lock = Lock()

    @contextmanager
    def borrowed(self) -> Iterator[Any]:
        """A request for exclusive use inside the block."""
        with self._lock:
            request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        try:
            yield request
        finally:
            with self._lock:
                self._idle.append(request)


def _import_library() -> Any:
    handled = sys.exc_info()[1]
    try:
        return import_openvino()
    except ImportError as error:
        raise_interrupt(error, handled)
        raise not_installed("openvino", error, "stmask-deploy[openvino]") from error


@cache
def shared_core() -> Any:
    """The process-wide OpenVINO core, which is never released.

    OpenVINO's CPU plugin sets an alternate signal stack for the thread while its core exists. If cores are not
    destroyed in reverse order of creation, the thread is left with a freed stack, and the next signal (such as Ctrl-C)
    crashes the process with a segmentation fault.
    """
    return _import_library().Core()


def choose_plugins(core: Any, device: str, precision: str) -> list[str]:
    """OpenVINO's names of the devices to try, best first.

    Raises:
        DeviceError: there is no GPU for device gpu.
    """
    available = list(core.available_devices)
    gpus = [name for name in available if name.split(".")[0] == "GPU"]
    if device == "cpu":
        return ["CPU"]
    if device == "auto":
        return [*([] if precision == "bf16" else gpus[:1]), "CPU"]  # Intel GPUs compute in f32 and f16
    if gpus:
        return gpus[:1]
    raise DeviceError(f"device gpu is not available in OpenVINO; available: {', '.join(available)}; "
                      "install the Intel GPU driver, or use device cpu")


def _read(core: Any, graph: Path, files: WeightFiles) -> Any:
    try:
        return files.model(core, graph)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{graph}: OpenVINO cannot read it ({one_line(error)}); "
                         "export the checkpoint again") from error


def _check_weights(path: Path, export_id: str) -> None:
    mark = weights_mark(export_id)
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - len(mark), 0))
        if file.read() != mark:
            raise InputError(f"{path} does not belong to export {export_id} like the .xml beside it, is damaged, or "
                             "was written by an earlier version of this tool; export the checkpoint again")


def _whole(model: Any, description: BundleDescription, precision: str) -> Any:
    """A copy of a model of a map of dynamic size, with the map's largest size; None if that makes nothing faster."""
    maps = [port for port in model.inputs if _name(port) in PROTOTYPE_INPUTS and port.get_partial_shape().is_dynamic]
    if not maps:
        return None
    whole = model.clone()
    whole.reshape({_name(port): [*port.get_partial_shape()[:2], *description.model.level_sizes[0]] for port in maps})
    return whole if convolutions_to_expand(whole, precision) else None


def _own_precision(core: Any, plugin: str) -> str:
    """The device's default inference precision."""
    return str(core.get_property(plugin, "INFERENCE_PRECISION_HINT").get_type_name())


def _compile(ov: Any, core: Any, model: Any, *, graph: Path, plugin: str, precision: str, threads: int | None,
             cache: Path | None) -> Any:
    """Compile the model for latency, and check that it uses the requested device and precision."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": getattr(ov.Type, precision)}
    if threads is not None and plugin == "CPU":
        settings["INFERENCE_NUM_THREADS"] = threads
    if cache is not None:
        # The plugin keys cache entries by model, device, settings and its own version.
        settings["CACHE_DIR"] = str(make_cache(cache))
    try:
        with held_cache(cache):
            compiled = core.compile_model(model, plugin, settings)
    except RuntimeError as error:
        if plugin != "CPU":
            raise DeviceError(f"{graph}: OpenVINO cannot compile it for {plugin} in {precision} ({one_line(error)}); "
                              "check the driver, or use device cpu") from error
        raise InputError(f"{graph}: OpenVINO cannot compile it for {plugin} ({one_line(error)}); "
                         "export the checkpoint again or update openvino") from error
    used = compiled.get_property("INFERENCE_PRECISION_HINT")
    if used != settings["INFERENCE_PRECISION_HINT"]:
        raise DeviceError(f"precision {precision} was asked for but OpenVINO would compute in {used.get_type_name()} "
                          f"on this {plugin}; use that or f32")
    devices = list(compiled.get_property("EXECUTION_DEVICES"))
    if [name.split(".")[0] for name in devices] != [plugin.split(".")[0]]:  # GPU may be reported as GPU.0
        raise DeviceError(f"device {plugin} was asked for but OpenVINO would use {', '.join(devices)}")
    return compiled


def _name(port: Any) -> str:
    """The port's name in a bundle; after graph transformations a port may have several names."""
    known = sorted(port.names & _NAMES)
    return known[0] if known else str(port.any_name)


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(port.get_element_type().to_dtype().name, shape)
