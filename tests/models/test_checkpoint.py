"""Checkpoints: every form that is taken, and parameters that do not fit, which are refused with one message."""
from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refuse
from safetensors.torch import save_file
from tiny_models import CONFIG, random_model, state_of
from torch import Tensor

from stmask_deploy.classes import OVIS, YTVIS_2019, YTVIS_2021
from stmask_deploy.config import Calibration, CenternessOrder
from stmask_deploy.errors import InputError
from stmask_deploy.models import checkpoint as module
from stmask_deploy.models.checkpoint import CONFIG_KEY, load_checkpoint

STATE = state_of(CONFIG)
INFERRED = replace(CONFIG, input_size=(360, 640))  # tensors do not show the input size
WEIGHT, BIAS = "proto_net.0.weight", "proto_net.0.bias"

pytestmark = pytest.mark.usefixtures("no_warnings")


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- what is taken

@pytest.mark.parametrize("form", ["zip", "legacy", "ordered", "wrapped", "wrapped in model", "parallel", "parameters"])
def test_forms(save: Callable[..., Path], form: str) -> None:
    content: Any = STATE
    if form == "ordered":
        content = OrderedDict(STATE)
    elif form == "wrapped":
        content = {"epoch": 3, "state_dict": STATE, "optimizer": {"lr": 0.1}}
    elif form == "wrapped in model":
        content = {"model": STATE}
    elif form == "parallel":
        content = {f"module.{name}": value for name, value in STATE.items()}
    elif form == "parameters":
        content = {name: torch.nn.Parameter(value) if value.is_floating_point() else value
                   for name, value in STATE.items()}
    path = save(content, _use_new_zipfile_serialization=form != "legacy")
    loaded = load_checkpoint(path)
    assert loaded.config == INFERRED and loaded.name == "model.pth"
    assert equal(dict(loaded.build().state_dict()), STATE)
    note = {"wrapped": "'state_dict'", "wrapped in model": "'model'", "parallel": "'module.'"}.get(form)
    assert note is None or any(note in line for line in loaded.notes)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    loaded = load_checkpoint(path)
    assert loaded.config == INFERRED and equal(dict(loaded.state), STATE)
    own = replace(CONFIG, centerness_order=CenternessOrder.ANCHOR)
    save_file(STATE, path, metadata={CONFIG_KEY: json.dumps(own.to_dict())})
    assert load_checkpoint(path).config == own


def test_weights_are_used(save: Callable[..., Path]) -> None:
    frames = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want, got = random_model(CONFIG)(frames), load_checkpoint(save(STATE)).build()(frames)
    assert torch.equal(want.anchors.class_probs, got.anchors.class_probs)


def test_own_configuration_wins(save: Callable[..., Path]) -> None:
    # Everything here is invisible in the tensors, or contradicted by what they would suggest.
    own = replace(CONFIG, class_names=("cat", "dog"), anchor_shapes=((3, 3), (2, 4), (4, 2)), input_size=(96, 128),
                  centerness_order=CenternessOrder.ANCHOR, temporal=replace(CONFIG.temporal, level=2))
    loaded = load_checkpoint(save({"state_dict": STATE, CONFIG_KEY: own.to_dict()}))
    assert loaded.config == own
    assert any("own" in note for note in loaded.notes)


def test_own_configuration_must_fit(save: Callable[..., Path]) -> None:
    own = replace(CONFIG, num_prototypes=9, class_calibration=Calibration.ALIGNED)
    message = refuse(save({"state_dict": STATE, CONFIG_KEY: own.to_dict()}))
    assert "FCB(ali: class)" in message
    for row in ("misshapen   proto_net.10.weight", "missing     prediction_layers.0.conf_layer.0.conv_adaption.weight",
                "unexpected  prediction_layers.0.conf_layer.0.weight"):
        assert row in message


@pytest.mark.parametrize("changes, message", [
    ({"depths": [10**9] * 4}, "depths must be in 1..1000"),
    ({"fpn_width": "wide"}, "fpn_width has the wrong form"),
    ({"fpn_width": -3}, "fpn_width must be in 1.."),
    ({"colour": "red"}, "unknown keys colour"),
    ({"class_calibration": "clever"}, "'clever' is not a valid Calibration"),
    ({"temporal": {"patch": 3}}, "patch"),
    ({"temporal": 3}, "model configuration"),
])
def test_own_configuration_may_be_nonsense(save: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    assert message in refuse(save({"state_dict": STATE, CONFIG_KEY: {**CONFIG.to_dict(), **changes}}))


@pytest.mark.parametrize("carried", ["[1, 2]", '"R50"', "7", "{", "{}"])
def test_own_configuration_of_safetensors_may_be_nonsense(tmp_path: Path, carried: str) -> None:
    save_file(STATE, tmp_path / "model.safetensors", metadata={CONFIG_KEY: carried})
    refuse(tmp_path / "model.safetensors")


def test_training_only_heads_are_left_out(save: Callable[..., Path]) -> None:
    heads = {"semantic_seg_conv.weight": torch.zeros(40, 6, 1, 1), "semantic_seg_conv.bias": torch.zeros(40),
             "maskiou_net.0.weight": torch.zeros(8, 1, 3, 3)}
    loaded = load_checkpoint(save({**STATE, **heads}))
    assert equal(dict(loaded.state), STATE)
    assert any("3 parameters" in note and "maskiou_net, semantic_seg_conv" in note for note in loaded.notes)


def test_counters_of_batch_normalisation_may_be_absent(save: Callable[..., Path]) -> None:
    # torch before 0.4.1 did not have them, and nothing reads them in inference.
    old = {name: value for name, value in STATE.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(STATE)
    assert load_checkpoint(save(old)).build() is not None


def test_views_and_strides(save: Callable[..., Path]) -> None:
    strided = {name: value.clone(memory_format=torch.channels_last) if value.ndim == 4 else value
               for name, value in STATE.items()}
    loaded = load_checkpoint(save(strided))
    assert equal(dict(loaded.state), STATE) and all(value.is_contiguous() for value in loaded.state.values())


@pytest.mark.parametrize("name, classes", [
    ("STMask_plus_base.pth", YTVIS_2019), ("STMask_plus_base_YTVIS2021.pth", YTVIS_2021),
    ("STMask_plus_base_OVIS.pth", OVIS),
])
def test_class_names(save: Callable[..., Path], name: str, classes: tuple[str, ...]) -> None:
    numbered = replace(CONFIG, class_names=tuple(f"class_{i}" for i in range(len(classes))))
    loaded = load_checkpoint(save(state_of(numbered), name))
    assert loaded.config.class_names == classes
    assert any(note.startswith("class names: ") for note in loaded.notes)


def test_class_names_of_a_file(save: Callable[..., Path], tmp_path: Path) -> None:
    loaded = load_checkpoint(save(state_of(replace(CONFIG, class_names=YTVIS_2019)), "STMask_plus_base.pth"))
    names = [f"name {number}" for number in range(len(YTVIS_2019))]
    (tmp_path / "names.txt").write_text("\n".join(names))
    named = loaded.named(tmp_path / "names.txt")
    assert named.config == replace(loaded.config, class_names=tuple(names))
    others = [note for note in loaded.notes if not note.startswith("class names: ")]
    assert list(named.notes) == [*others, "class names: names.txt"] and len(others) == len(loaded.notes) - 1
    (tmp_path / "names.txt").write_text("one\n")
    with pytest.raises(InputError, match="names 1 classes"):
        loaded.named(tmp_path / "names.txt")


def test_digest(save: Callable[..., Path]) -> None:
    path = save(STATE)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_checkpoint(path).sha256 == digest
    assert load_checkpoint(path, f" {digest.upper()}\n").sha256 == digest
    message = refuse(path, "ab" * 32)
    assert digest in message and "ab" * 32 in message


def test_the_digest_is_of_the_whole_of_a_large_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "large").write_bytes(content)
    assert module.digest_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


# --- parameters that do not fit

def test_all_misfits_in_one_table(save: Callable[..., Path]) -> None:
    nan, inf = STATE["fpn.lat_layers.1.weight"].clone(), STATE["fpn.lat_layers.2.bias"].clone()
    nan[0, 0], inf[2] = float("nan"), float("-inf")
    state = {**STATE, WEIGHT: torch.zeros(5, 6, 1, 1), "backbone.bn1.weight": STATE["backbone.bn1.weight"].half(),
             "fpn.lat_layers.1.weight": nan, "fpn.lat_layers.2.bias": inf, "extra.weight": torch.zeros(2, 5),
             "backbone.bn1.num_batches_tracked": torch.zeros(()),
             "backbone.bn1.running_var": torch.tensor([1.0, -1.0, 0.0, -0.5])}
    del state[BIAS]
    message = refuse(save(state))
    assert "(8 parameters)" in message
    table = " ".join(message.split())
    for row in (f"missing {BIAS} expected shape [5]", f"misshapen {WEIGHT} expected [5, 6, 3, 3], found [5, 6, 1, 1]",
                "unexpected extra.weight shape [2, 5]",
                "wrong type backbone.bn1.weight expected float32, found float16",
                "wrong type backbone.bn1.num_batches_tracked expected int64, found float32",
                "not finite fpn.lat_layers.1.weight", "not finite fpn.lat_layers.2.bias 1 of 6 values",
                "negative backbone.bn1.running_var 2 of 4 variances"):
        assert row in table
    assert len(message.splitlines()) == 1 + 8


def test_long_tables_are_cut(save: Callable[..., Path]) -> None:
    extra = {f"extra.{i}": torch.zeros(1) for i in range(30)}
    message = refuse(save({**STATE, **extra}))
    assert "(30 parameters)" in message and "... and 10 more" in message and len(message.splitlines()) == 22
    message = refuse(save({**STATE, **{f"extra.{i}": torch.zeros(1) for i in range(20)}}))
    assert "(20 parameters)" in message and "more" not in message and len(message.splitlines()) == 21


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precision(save: Callable[..., Path], dtype: torch.dtype) -> None:
    stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in STATE.items()}
    loaded = load_checkpoint(save(stored))
    assert f"weights stored as {str(dtype).removeprefix('torch.')}, computed in float32" in loaded.notes
    assert loaded.state.keys() == STATE.keys()
    for name, value in loaded.state.items():
        assert value.dtype == STATE[name].dtype and torch.equal(value, stored[name].to(value.dtype))


def test_values_that_float32_cannot_hold(save: Callable[..., Path]) -> None:
    state = {name: value.double() if value.is_floating_point() else value for name, value in STATE.items()}
    state[WEIGHT] = torch.full_like(state[WEIGHT], 1e300)
    assert f"not finite {WEIGHT}" in " ".join(refuse(save(state)).split())


@pytest.mark.parametrize("value, found", [
    pytest.param(lambda want: want.to_sparse(), "float32 sparse_coo", id="sparse"),
    pytest.param(lambda want: want.to("meta"), "float32 on meta", id="meta, no values at all"),
    pytest.param(lambda want: torch.quantize_per_tensor(want, 0.1, 0, torch.qint8), "qint8", id="quantized"),
    pytest.param(lambda want: torch.complex(want, want), "complex64", id="complex"),
    pytest.param(lambda want: want.bool(), "bool", id="bool"),
    pytest.param(lambda want: torch.nested.nested_tensor([want]), f"not tensors: {WEIGHT}", id="nested"),
])
def test_odd_tensors(save: Callable[..., Path], value: Callable[[Tensor], Tensor], found: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of making and saving them
        path = save({**STATE, WEIGHT: value(STATE[WEIGHT])})
    assert found in refuse(path)


def test_missing_parts(save: Callable[..., Path]) -> None:
    backbone = {name: value for name, value in STATE.items() if name.startswith("backbone.")}
    assert "named prediction_layers.0.bbox_layer.*: this is not an STMask checkpoint" in refuse(save(backbone))


def test_missing_parameters_that_tell_the_variant_are_all_named(save: Callable[..., Path]) -> None:
    absent = ("fpn.lat_layers.0.weight", "proto_net.0.weight", "proto_net.0.bias")
    message = refuse(save({name: value for name, value in STATE.items() if name not in absent}))
    assert message.splitlines()[1:] == ["  missing     fpn.lat_layers.0.weight", "  missing     proto_net.0.weight"]


def test_missing_blocks(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    r50 = replace(CONFIG, depths=(3, 4, 6, 3))
    whole = state_of(r50)
    rest = {name: value for name, value in whole.items() if not name.startswith("backbone.layers.2.5.")}
    path = save(rest, "cut.pth")
    notes = load_checkpoint(path).notes  # of no ResNet's widths: a doubt
    assert notes[0].startswith("WARNING: the backbone has 3-4-5-3 blocks in its stages") and "3-4-6-3 (R50)" in notes[0]
    monkeypatch.setattr(module, "RESNET_WIDTHS", CONFIG.widths)
    assert "3-4-5-3 blocks in its stages" in refuse(path)
    assert not any("blocks" in note for note in load_checkpoint(save(whole)).notes)
    own = {CONFIG_KEY: replace(r50, depths=(3, 4, 5, 3)).to_dict()}
    assert not any("blocks" in note for note in load_checkpoint(save({"state_dict": rest, **own})).notes)


def test_anchor_ratios_where_tensors_cannot_show_them(save: Callable[..., Path]) -> None:
    path = save(state_of(replace(CONFIG, kernel_shapes=((3, 3),) * 2, anchor_shapes=((3, 3),) * 2)))
    assert "2 kernels of one shape need as many anchor ratios, got 3; give them with --anchor-ratios" in refuse(path)
    assert load_checkpoint(path, anchor_ratios=(1.0, 4.0)).config.anchor_shapes == ((3, 3), (6, 1.5))


def test_a_configuration_that_is_known(save: Callable[..., Path]) -> None:
    known = replace(CONFIG, kernel_shapes=((3, 3),) * 2, anchor_shapes=((3, 3), (5, 2)))
    loaded = load_checkpoint(save(state_of(known)), config=known)
    assert loaded.config == known
    with pytest.raises(InputError, match="missing|shape"):
        load_checkpoint(save(STATE), config=known)


def test_shapes_beyond_all_memory(save: Callable[..., Path]) -> None:
    # A view repeats one stored value: a file of a few kilobytes, a tensor of terabytes.
    huge = torch.zeros(1, 1, 1, 1).expand(10**6, 10**6, 1, 1)
    path = save({**STATE, WEIGHT: huge})
    assert path.stat().st_size < 10**6
    assert "more than 4 GiB" in refuse(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8])
def test_values_that_are_stored_once_and_shown_often(save: Callable[..., Path], dtype: torch.dtype) -> None:
    path = save({**STATE, WEIGHT: torch.ones(1, dtype=dtype).expand(10_000, 10_000)})
    assert f"'{WEIGHT}' repeats values that are stored once" in refuse(path)
    shared = torch.zeros(16)
    assert load_checkpoint(save({**STATE, **{name: shared[:value.numel()].view(value.shape)
                                            for name, value in STATE.items() if value.shape == (2,)}})).state


def test_half_precision_counts_as_it_is_computed(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in STATE.items()}
    monkeypatch.setattr(module, "MAX_BYTES", sum(value.numel() * 3 for value in STATE.values()))
    assert "holds more than" in refuse(save(half))


def test_what_tensors_carry_is_left(save: Callable[..., Path]) -> None:
    weight = STATE[WEIGHT].clone()
    weight.numel = weight.shape  # type: ignore[assignment,method-assign]
    weight.detach = 3  # type: ignore[assignment,method-assign]
    assert torch.equal(load_checkpoint(save({**STATE, WEIGHT: weight})).state[WEIGHT], STATE[WEIGHT])


def test_names_of_parameters_stay_on_their_lines(save: Callable[..., Path]) -> None:
    name = "a\nb\x1b[2J" + "c" * 999
    message = refuse(save({**STATE, name: torch.zeros(1)}))
    assert "a\\nb\\x1b[2Jccc" in message and len(message.splitlines()) == 2 and len(message.splitlines()[1]) < 200
    assert "not tensors: a\\nb; this" in refuse(save({**STATE, "a\nb": 1}))


def test_a_file_one_may_not_look_at(shut_folder: Path) -> None:
    assert "model.pth does not exist" in refuse(shut_folder / "model.pth")  # to the stand-in of such a folder
