"""How files are refused."""
from __future__ import annotations

from pathlib import Path

import pytest

from stmask_deploy.errors import InputError
from stmask_deploy.models.checkpoint import load_checkpoint


def refuse(path: Path, sha256: str | None = None) -> str:
    """The message with which a file is refused."""
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, sha256)
    message = str(caught.value)
    assert path.name in message and "Traceback" not in message
    return message
