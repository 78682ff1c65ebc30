from __future__ import annotations

import errno

import pytest

from stmask_deploy.errors import OutputError
from stmask_deploy.teller import Teller


def fail(error: OSError) -> None:
    raise error


def test_messages_are_passed_on() -> None:
    told: list[tuple[object, ...]] = []
    tell = Teller()
    tell(lambda *args, **options: told.append((*args, options)), 1, "a", of="b")
    tell.check()
    assert told == [(1, "a", {"of": "b"})]


def test_the_first_failure_is_raised_in_the_end() -> None:
    tell = Teller()
    tell(fail, OSError(errno.ENOSPC, "disk full"))
    tell(fail, BrokenPipeError(errno.EPIPE, "broken pipe"))
    with pytest.raises(OutputError, match=r"messages cannot be written \(disk full\); the files are complete"):
        tell.check()


def test_an_error_without_a_number() -> None:
    tell = Teller()
    tell(fail, OSError("no more"))
    with pytest.raises(OutputError, match=r"messages cannot be written \(no more\)"):
        tell.check()


def test_other_errors_are_no_matter_of_messages() -> None:
    with pytest.raises(ZeroDivisionError):
        Teller()(lambda: 1 / 0)
