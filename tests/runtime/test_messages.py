from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tiny_bundles import write_bundle

from stmask_deploy.runtime.messages import tell_setup, told_warnings
from stmask_deploy.runtime.model import load


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with told_warnings():
        logging.getLogger("stmask_deploy.runtime").warning("%s is odd", "a\nb.mp4")
    assert capsys.readouterr().err == "warning: a\\nb.mp4 is odd\n"


def test_what_a_checkpoint_was_called_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell_setup(load(write_bundle(tmp_path, checkpoint_name="a\n\x1b[2Jwrote b")), is_live=False)
    told = capsys.readouterr().err
    assert r"(a\n\x1b[2Jwrote b) on " in told and told.count("\n") == 1
