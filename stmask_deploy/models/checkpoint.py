"""Loads a checkpoint into the network it belongs to: safely, and either completely or not at all."""
from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..classes import guess_class_names, read_class_names
from ..config import ModelConfig
from ..errors import InputError
from ..wording import MAX_SHOWN, counted, on_one_line, shown
from .pickle_scan import RefusedPickle
from .stmask import STMask, build_stmask
from .torch_file import MAX_BYTES, PICKLE_START, ZIP_START, load_tensors
from .variant import infer_config

CONFIG_KEY = "stmask_config"  # next to the state dict (or in safetensors metadata): the checkpoint's own ModelConfig
STATE_KEYS = ("state_dict", "model")
RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # layers -> blocks of each stage
RESNET_WIDTHS = (64, 128, 256, 512)
CONVERTED = {torch.float16, torch.bfloat16, torch.float64}  # to float32, where all weights are of one of these
MOST_PROBLEMS = 20  # parameters that an error message lists
NAMES_NOTE = "class names:"  # how the note on where they are from begins
TRAINING_ONLY = ("semantic_seg_conv.", "maskiou_net.", "class_existence_fc.")  # heads used only by training losses


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint verified to fit its network."""

    name: str
    sha256: str
    config: ModelConfig
    state: Mapping[str, Tensor]
    notes: tuple[str, ...]  # assumptions, dropped or renamed parameters, one line each

    def build(self) -> STMask:
        """The network with these weights, in evaluation mode."""
        model = build_stmask(self.config)
        model.load_state_dict(dict(self.state), strict=True)
        return model

    def named(self, names_file: Path) -> Checkpoint:
        """The same with the class names of a file, see `read_class_names`.

        Raises:
            InputError: they cannot be read, or are not as many.
        """
        names = read_class_names(names_file, self.config.num_classes - 1)
        others = (note for note in self.notes if not note.startswith(NAMES_NOTE))
        return replace(self, config=replace(self.config, class_names=names),
                       notes=(*others, f"{NAMES_NOTE} {names_file.name}"))


def load_checkpoint(path: Path, sha256: str | None = None, anchor_ratios: tuple[float, ...] | None = None,
                    config: ModelConfig | None = None) -> Checkpoint:
    """Read a `.pth` (pickle, tensors only) or `.safetensors` checkpoint and determine its variant.

    A configuration stored in the checkpoint takes precedence over inference from its tensors, which must fit it.

    Args:
        path: the file.
        sha256: hexadecimal digest the file must have, or None.
        anchor_ratios: for checkpoints without a stored configuration, see `variant.anchor_shapes`.
        config: of the network, if known; the stored configuration and inference from the tensors are then skipped.

    Raises:
        InputError: the file is not a checkpoint of a complete STMask network. The message lists the parameters (at
            most `MOST_PROBLEMS`) that are missing, unexpected, misshapen, of the wrong type, not finite, or a negative
            variance. If parameters that determine the variant are missing, it lists only those: nothing else can be
            checked.
    """
    path = Path(path)
    digest = digest_of(path)
    if sha256 is not None and digest != sha256.strip().lower():
        raise InputError(f"{path}: sha256 is {digest}, expected {sha256.strip().lower()}: "
                         "this is not the expected file")
    content, carried = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state, notes = _clean(content, path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        if config is not None:
            notes.append("configuration: given")
        elif carried is not None:
            config = ModelConfig.from_dict(carried)
            notes.append("configuration: the checkpoint's own")
        else:
            config = infer_config(shapes, anchor_ratios)
            notes += _depth_notes(config)
            names, reason = guess_class_names(path.name, config.num_classes - 1)
            config = replace(config, class_names=names)
            notes.append(f"{NAMES_NOTE} {reason}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    state, dropped = _fit(state, config, path)
    return Checkpoint(path.name, digest, config, state, (*notes, *dropped))


def _depth_notes(config: ModelConfig) -> list[str]:
    """Warnings about a backbone whose depth was inferred: if whole blocks are missing, nothing else looks wrong.

    Raises:
        InputError: it has the widths of a ResNet but the depths of none.
    """
    if config.depths in RESNETS.values():
        return []
    known = ", ".join(f"{'-'.join(map(str, blocks))} (R{layers})" for layers, blocks in RESNETS.items())
    found = f"the backbone has {'-'.join(map(str, config.depths))} blocks in its stages, ResNets have {known}"
    if config.widths == RESNET_WIDTHS:
        raise InputError(f"{found}: whole blocks are missing. A network that is made so needs its configuration in the "
                         f"checkpoint, as {CONFIG_KEY!r}")
    return [f"WARNING: {found}; nothing shows whether whole blocks are missing"]


def digest_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a checkpoint file.

    Raises:
        InputError: it cannot be read.
    """
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; give the checkpoint file (.pth or .safetensors)")
    if os.path.exists(path) and not os.path.isfile(path):  # from a pipe one would wait for ever
        raise InputError(f"{path} is not a file; give the checkpoint file (.pth or .safetensors)")
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"checkpoint {path} does not exist") from error
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read ({error})") from error


def _read_pickle(path: Path) -> tuple[Any, Any]:
    """(content, the stored ModelConfig as a dict, or None)."""
    _check_form(path)
    try:
        content = load_tensors(path)
    except InputError:
        raise
    except Exception as error:  # torch reports damaged files with whatever its parsers raise
        raise InputError(f"{path} {_torch_reason(error)}") from error
    return content, content.get(CONFIG_KEY) if isinstance(content, Mapping) else None


def _check_form(path: Path) -> None:
    """Reject non-pickle files by their first bytes; torch would try to unpickle them and fail with a long message."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(9)
    if not start:
        raise InputError(f"{path} is empty")
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < size:
        raise InputError(f"{path} is a safetensors file; rename it to {path.with_suffix('.safetensors').name}")
    if not start.startswith((ZIP_START, PICKLE_START)):
        what = " but a web page" if start.lstrip().startswith(b"<") else ""
        raise InputError(f"{path} is not a checkpoint{what}; download it again")


def _torch_reason(error: Exception) -> str:
    """Why torch could not load a file; its own message is a paragraph that recommends disabling its safety checks."""
    text = str(error)
    if isinstance(error, RefusedPickle):
        return f"holds {text}, which could do harm; save the plain state dict alone"
    never_run = "code or objects other than tensors, which are never run"
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"is not a plain checkpoint: it holds {never_run} ({found[1]})"
    if "TorchScript" in text:
        return "is a TorchScript archive; give the checkpoint that it was made from"
    what = f"holds {never_run}" if isinstance(error, pickle.UnpicklingError) else "is not a checkpoint"
    return f"is damaged or {what}; download it again"


def _read_safetensors(path: Path) -> tuple[Any, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError("reading .safetensors needs the package safetensors: "
                         "pip install 'stmask-deploy[export]'") from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            carried = json.loads((file.metadata() or {}).get(CONFIG_KEY, "null"))
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a safetensors file or is damaged ({error})") from error
    return content, carried


def _clean(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict inside `content` with plain names, and notes on what was changed."""
    notes = []
    if isinstance(content, Mapping):
        for key in STATE_KEYS:
            if isinstance(content.get(key), Mapping):
                notes.append(f"weights taken from the entry {key!r}")
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path} holds no parameters (found {type(content).__name__}); "
                         "an STMask checkpoint is a mapping of names to tensors")
    others = [on_one_line(str(name))[:MAX_SHOWN] for name, value in content.items()
              if not isinstance(value, Tensor) or value.is_nested]
    if others:
        raise InputError(f"{path}: entries that are not tensors: {', '.join(others[:5])}"
                         f"{' ...' if len(others) > 5 else ''}; this is not an STMask checkpoint")
    # Without what a file may have set on a tensor object, under the names of its methods too.
    state = {str(name): Tensor.detach(value) for name, value in content.items()}
    # Views of a single value can have any shape in a file of any size.
    if sum(value.numel() * max(value.element_size(), 4) for value in state.values()) > MAX_BYTES:  # as float32
        raise InputError(f"{path} holds more than {MAX_BYTES >> 30} GiB of parameters, which no STMask checkpoint does")
    repeated = [name for name, value in state.items() if _is_repeated(value)]
    if repeated:
        raise InputError(f"{path}: {shown(repeated[0])} repeats values that are stored once, which no "
                         "parameter of a network does; save it with values of its own")
    if all(name.startswith("module.") for name in state):
        notes.append("removed the prefix 'module.' (saved from a data-parallel model)")
        state = {name.removeprefix("module."): value for name, value in state.items()}
    kinds = {value.dtype for value in state.values() if value.is_floating_point()}
    if len(kinds) == 1 and kinds <= CONVERTED:
        kind = str(kinds.pop()).removeprefix("torch.")
        notes.append(f"weights stored as {kind}, computed in float32")
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return state, notes


def _is_repeated(value: Tensor) -> bool:
    return value.layout is torch.strided and value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _fit(state: Mapping[str, Tensor], config: ModelConfig, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The parameters of `config`'s network from `state`, and notes; raises InputError with a table of all misfits."""
    with torch.device("meta"):
        expected = build_stmask(config).state_dict()
    notes, problems, fitted = [], [], {}
    extra = [name for name in state if name not in expected]
    harmless = [name for name in extra if name.startswith(TRAINING_ONLY)]
    if harmless:
        prefixes = sorted({name.split(".")[0] for name in harmless})
        notes.append(f"left out {counted(len(harmless), 'parameter')} used in training only ({', '.join(prefixes)})")
    problems += [(name, "unexpected", f"shape {list(state[name].shape)}") for name in extra if name not in harmless]
    for name, want in expected.items():
        if name not in state and name.endswith("num_batches_tracked"):  # absent from older files, unused in inference
            fitted[name] = torch.zeros((), dtype=torch.int64)
        elif problem := _problem(name, state.get(name), want):
            problems.append((name, *problem))
        else:
            fitted[name] = state[name].contiguous()
    if problems:
        count = counted(len(problems), "parameter")
        raise InputError(f"{path} does not fit {config.variant} ({count}):\n" + _table(problems))
    return fitted, notes


def _problem(name: str, value: Tensor | None, want: Tensor) -> tuple[str, str] | None:
    """Kind and details of what is wrong with a parameter, None if it fits; `want` has its shape and type."""
    if value is None:
        return "missing", f"expected shape {list(want.shape)}"
    if value.shape != want.shape:
        return "misshapen", f"expected {list(want.shape)}, found {list(value.shape)}"
    if _kind(value) != (expected_kind := str(want.dtype).removeprefix("torch.")):
        return "wrong type", f"expected {expected_kind}, found {_kind(value)}"
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).sum())
        return "not finite", f"{bad} of {value.numel()} values are NaN or infinite"
    if name.endswith("running_var") and bool((value < 0).any()):
        return "negative", f"{int((value < 0).sum())} of {value.numel()} variances"
    return None


def _kind(value: Tensor) -> str:
    """Element type, plus layout or device if it is not an ordinary CPU tensor."""
    kind = str(value.dtype).removeprefix("torch.")
    layout = "" if value.layout is torch.strided else f" {value.layout}".replace("torch.", "")
    return kind + layout + ("" if value.device.type == "cpu" else f" on {value.device.type}")


def _table(problems: list[tuple[str, str, str]]) -> str:
    rows = [(on_one_line(name)[:MAX_SHOWN], kind, detail) for name, kind, detail in problems[:MOST_PROBLEMS]]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {kind:10s}  {name:{width}s}  {detail}" for name, kind, detail in rows]
    if len(problems) > len(rows):
        lines.append(f"  ... and {len(problems) - len(rows)} more")
    return "\n".join(lines)
