"""The instance graph: mask coefficients and embeddings of a few selected anchors."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmask_deploy.config import ModelConfig
from stmask_deploy.models.head import PredictionHead
from stmask_deploy.models.stmask import STMask

EXAMPLE_ROWS = 3  # in the traced example; the graph takes any number


class InstanceGraph(nn.Module):
    """The mask and track branches of the head, computed on windows around single cells of the shared map.

    Together the two branches are a quarter of the frame network's arithmetic, but only the rows that survive NMS are
    needed. Each row depends only on a window of the shared map, as large as the branch's receptive field. Cells beyond
    the map's border are set to zero *before every convolution*, as in the dense branch, so the values are the same.

    Args:
        model: the network; its mask and track branches must not be calibrated (`ModelConfig.has_local_branches`).
        config: its configuration.
    """

    cells: Tensor

    def __init__(self, model: STMask, config: ModelConfig) -> None:
        super().__init__()
        head = model.prediction_layers[0]
        assert isinstance(head, PredictionHead)
        self.branches = nn.ModuleList([Branch(head.mask_extra, head.mask_layer, config.num_prototypes),
                                       Branch(head.track_extra, head.track_layer, config.embedding_dim)])
        self.anchors_per_cell = config.anchors_per_cell
        reach = config.tower_depth + max(side // 2 for kernel in config.kernel_shapes for side in kernel)
        self.windows = Windows(config.level_sizes, reach)
        # (anchors,) looked up, since an integer division takes a graph seven steps.
        cells = torch.arange(config.num_anchors // self.anchors_per_cell).repeat_interleave(self.anchors_per_cell)
        self.register_buffer("cells", cells, persistent=False)

    def forward(self, shared: Tensor, anchor_index: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the rows of the given anchors.

        Args:
            shared: (cells, T) the shared head map of all levels, one row per cell, in anchor order.
            anchor_index: (N,) int64, from 0 to the number of anchors - 1; N may be 0.

        Returns:
            (N, P) mask coefficients before tanh and (N, E) embeddings of unit length.
        """
        windows, inside = self.windows(shared, self.cells.index_select(0, anchor_index))
        place = anchor_index % self.anchors_per_cell
        coeffs, embeddings = (branch(windows, inside, place) for branch in self.branches)
        return coeffs, F.normalize(embeddings, dim=-1)


class Windows(nn.Module):
    """Square windows around single cells of the maps of all levels.

    Args:
        level_sizes: (height, width) of each map.
        reach: cells on each side of the middle one.
    """

    rows: Tensor
    columns: Tensor
    widths: Tensor

    def __init__(self, level_sizes: Sequence[tuple[int, int]], reach: int) -> None:
        super().__init__()
        self.reach = reach
        places = torch.cat([torch.cartesian_prod(torch.arange(height), torch.arange(width))
                            for height, width in level_sizes])  # (cells, 2) row and column
        sizes = torch.cat([torch.tensor(size).expand(size[0] * size[1], 2) for size in level_sizes])
        near = places[..., None] + torch.arange(-reach, reach + 1)
        on_map = (near >= 0) & (near < sizes[..., None])  # (cells, 2, side) which rows and columns of a window exist
        for name, table in (("rows", on_map[:, 0]), ("columns", on_map[:, 1]), ("widths", sizes[:, 1])):
            self.register_buffer(name, table.contiguous(), persistent=False)

    def forward(self, shared: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Cut out windows.

        Args:
            shared: (cells, T) the maps, one row per cell.
            cell: (N,) int64 the cells in the middle.

        Returns:
            (N, T, side, side) windows, zero off the map, and (N, 1, side, side) masks, 1 on the map.
        """
        steps = torch.arange(-self.reach, self.reach + 1, device=cell.device)
        rows, columns, width = (table.index_select(0, cell) for table in (self.rows, self.columns, self.widths))
        inside = (rows[:, :, None] & columns[:, None, :]).to(shared.dtype)
        middles = cell[:, None] + width[:, None] * steps  # (N, side) the middle cell of each row
        index = middles[:, :, None] + steps
        index = index.clamp(0, len(shared) - 1)  # cells off the map may be any, since they are zeroed below
        windows = shared.index_select(0, index.flatten()).unflatten(0, index.shape)  # (N, side, side, T)
        return (windows * inside[..., None]).permute(0, 3, 1, 2), inside[:, None]


class Branch(nn.Module):
    """A tower and its prediction layers, evaluated at the centre of each window.

    Args:
        tower: 3x3 convolutions with padding, each followed by ReLU.
        layers: one convolution per kernel shape; channels are (scale, value).
        size: number of values per anchor.
    """

    def __init__(self, tower: nn.Sequential, layers: nn.ModuleList, size: int) -> None:
        super().__init__()
        self.tower, self.layers, self.size = tower, layers, size

    def forward(self, windows: Tensor, inside: Tensor, place: Tensor) -> Tensor:
        """Windows (N, T, side, side), masks (N, 1, side, side), index of the anchor within its cell (N,) -> (N, size).
        """
        x = windows
        for conv in _convolutions(self.tower):
            inside = inside[:, :, 1:-1, 1:-1]
            x = F.relu(F.conv2d(x, conv.weight, conv.bias)) * inside
        middle = x.shape[2] // 2
        found = []
        for layer in _convolutions(self.layers):
            kernel_h, kernel_w = layer.kernel_size
            top, left = middle - kernel_h // 2, middle - kernel_w // 2
            tap = x[:, :, top:top + kernel_h, left:left + kernel_w]
            found.append(F.conv2d(tap, layer.weight, layer.bias).flatten(1).unflatten(1, (-1, self.size)))
        anchors = torch.cat(found, dim=1)  # (N, kernels * scales, size)
        return anchors.gather(1, place[:, None, None].expand(-1, 1, self.size)).squeeze(1)


def _convolutions(layers: Iterable[nn.Module]) -> list[nn.Conv2d]:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def instance_inputs(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Seeded inputs of the instance graph, in order: the shared map and `EXAMPLE_ROWS` anchors."""
    generator = torch.Generator().manual_seed(0)
    num_cells = config.num_anchors // config.anchors_per_cell
    shared = torch.rand((num_cells, config.head_width), generator=generator)
    return shared, torch.randint(config.num_anchors, (EXAMPLE_ROWS,), generator=generator)
