"""What ends a write by PyTorch is what is raised."""
from __future__ import annotations

import errno
import io

import pytest
import torch

from stmask_deploy.models.torch_file import save_tensors

VALUES = {"a": torch.arange(1000.0), "b": [torch.zeros(30, 30)]}


class Ending(io.BytesIO):
    """A file whose writes raise `error` from a certain one on."""

    def __init__(self, first: int, error: BaseException) -> None:
        super().__init__()
        self._left, self._error = first, error

    def write(self, data: object) -> int:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_what_ended_it_is_raised(first: int, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        save_tensors(VALUES, Ending(first, error))
    assert caught.value is error


@pytest.mark.parametrize("handled", [KeyboardInterrupt(), OSError("earlier")], ids=repr)
def test_what_is_being_handled_is_not_the_cause(handled: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot is written again after Ctrl-C, and may then fail for another reason."""
    def fail(*_: object) -> None:
        raise RuntimeError("the writer's own")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="the writer's own"):  # noqa: PT012
        try:
            raise handled
        except BaseException:
            save_tensors(VALUES, io.BytesIO())
