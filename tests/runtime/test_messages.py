from __future__ import annotations

import logging

import pytest

from stmask_deploy.runtime.messages import told_warnings


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with told_warnings():
        logging.getLogger("stmask_deploy.runtime").warning("%s is odd", "a\nb.mp4")
    assert capsys.readouterr().err == "warning: a\\nb.mp4 is odd\n"
