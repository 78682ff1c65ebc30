"""The complete network, with the released parameter names."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..config import ModelConfig
from .backbone import ResNet
from .fpn import FPN
from .head import AnchorPredictions, PredictionHead
from .protonet import ProtoNet
from .temporal import TemporalNet


@dataclass(frozen=True)
class FramePrediction:
    """Outputs of the frame network for a batch of frames."""

    anchors: AnchorPredictions
    prototypes: Tensor  # (B, Hm, Wm, P)
    p3: Tensor  # (B, F, Hm / 2, Wm / 2) the level the prototypes are computed from
    fpn: Tensor  # (B, F, h, w) the level the temporal network reads
    temporal: Tensor  # (B, T, h, w) the shared head map of that level
    shared: tuple[Tensor, ...]  # (B, T, h, w) the shared head maps of all levels


class STMask(nn.Module):
    """Frame network and, optionally, `TemporalNet`. `forward` is the frame network.

    Args:
        backbone, fpn, proto_net, head: the parts, with matching channels.
        temporal_net: None for a model without temporal fusion.
        temporal_level: index of the pyramid level whose maps are returned for the temporal network.
    """

    def __init__(self, backbone: ResNet, fpn: FPN, proto_net: ProtoNet, head: PredictionHead,
                 temporal_net: TemporalNet | None, temporal_level: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.proto_net = proto_net
        self.fpn = fpn
        self.prediction_layers = nn.ModuleList([head])
        self.temporal_level = temporal_level
        if temporal_net is not None:
            self.TemporalNet = temporal_net

    def forward(self, frames: Tensor) -> FramePrediction:
        """(B, 3, H, W) normalised RGB, sides multiples of 32."""
        levels = self.fpn(self.backbone(frames)[-3:])
        anchors, shared = self.prediction_layers[0](levels)
        return FramePrediction(anchors, self.proto_net(levels[0]), levels[0], levels[self.temporal_level],
                               shared[self.temporal_level], shared)


def build_stmask(config: ModelConfig) -> STMask:
    """The network described by `config`, with freshly initialised weights, in evaluation mode."""
    backbone = ResNet(config.stem_width, config.depths, config.widths, config.expansion, config.deformable_blocks)
    head = PredictionHead(
        config.fpn_width, config.head_width, config.tower_depth, config.kernel_shapes, len(config.anchor_scales),
        config.num_classes, config.num_prototypes, config.embedding_dim, config.class_calibration,
        config.mask_calibration, config.track_calibration, config.centerness_order)
    temporal = config.temporal
    temporal_net = None if temporal is None else TemporalNet(
        config.head_width, temporal.patch_size, temporal.roi_size, temporal.widths, config.num_prototypes)
    return STMask(backbone, FPN(backbone.out_channels[-3:], config.fpn_width, config.num_downsamples),
                  ProtoNet(config.fpn_width, config.proto_width, config.num_prototypes), head, temporal_net,
                  1 if temporal is None else temporal.level).eval()
