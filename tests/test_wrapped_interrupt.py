from __future__ import annotations

import pytest

from stmask_deploy.wrapped_interrupt import find_interrupt, raise_interrupt


@pytest.mark.parametrize("pressed", [KeyboardInterrupt(), SystemExit(143)], ids=repr)
@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_what_a_signal_was_turned_into_is_a_signal_again(link: str, pressed: BaseException) -> None:
    inner, outer = ImportError("initialization failed"), ImportError("no backend")
    setattr(inner, link, pressed)
    outer.__cause__ = inner
    with pytest.raises(type(pressed)) as caught:
        raise_interrupt(outer, None)
    assert caught.value is pressed
    assert find_interrupt(outer, None) is (pressed if isinstance(pressed, KeyboardInterrupt) else None)


def test_other_failures_are_no_ctrl_c() -> None:
    error = ImportError("no such module")
    error.__context__ = KeyError("module")
    raise_interrupt(error, None)


def test_a_ctrl_c_that_was_being_handled_before_is_none() -> None:
    """A program catches Ctrl-C and goes on, with something that fails."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as pressed:
        try:
            raise ImportError("no such module")
        except ImportError as error:
            raise_interrupt(error, pressed)
            with pytest.raises(KeyboardInterrupt):
                raise_interrupt(error, None)
