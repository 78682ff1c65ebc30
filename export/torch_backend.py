"""PyTorch as a backend of the runtime: the reference for exported graphs."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf

import torch

from stmask_deploy.bundle import BundleDescription
from stmask_deploy.models.stmask import STMask
from stmask_deploy.runtime.backends import Value, chosen_outputs
from stmask_deploy.runtime.loading import Bundle, expected_tensors

from .frame_graph import FrameGraph
from .temporal_graph import TemporalGraph


class TorchBackend:
    """A `Backend` that runs one graph's PyTorch module eagerly in float32."""

    def __init__(self, module: torch.nn.Module, description: BundleDescription, role: str, device: str = "cpu") -> None:
        self.metadata = description
        where = f"CPU, f32, {torch.get_num_threads()} threads" if device == "cpu" else f"{device}, f32"
        self.device = f"PyTorch {torch.__version__} on {where}"
        self.is_on_host, self.whole_from = device == "cpu", inf
        self.inputs, self.outputs = expected_tensors(description, role)
        self._module, self._device = module.eval().to(device), device

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`. As a plain reference, it always computes all outputs and keeps none on the device."""
        names = chosen_outputs(self.outputs, outputs)
        with torch.no_grad():
            values = self._module(*(torch.from_numpy(inputs[name]).to(self._device) for name in self.inputs))
        found = dict(zip(self.outputs, values, strict=True))
        return {name: found[name].cpu().numpy() for name in names}


def torch_bundle(model: STMask, description: BundleDescription, device: str = "cpu") -> Bundle:
    """`model` as an opened bundle for the runtime's pipeline; moves the model to `device` (cpu | cuda:N).

    The bundle has no prototype graph and no instance graph, so that prototypes, mask coefficients and embeddings are
    computed for the whole frame, as a reference.
    """
    frame = FrameGraph(model, description.model, description.max_candidates, description.candidate_threshold)
    temporal = (TorchBackend(TemporalGraph(model), description, "temporal", device) if description.model.temporal
                else None)
    return Bundle(description, TorchBackend(frame, description, "frame", device), prototypes=None, instances=None,
                  temporal=temporal)
