"""Calls made by another thread."""
from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from stmask_deploy.console import WORKER_NAME
from stmask_deploy.runtime.daemon_thread import DaemonThread


def test_the_thread_gives_back_what_a_call_returns_or_raises() -> None:
    thread = DaemonThread("ours")
    assert thread.call(threading.current_thread) is thread
    assert thread.daemon  # what hangs keeps no program from ending
    with pytest.raises(KeyError, match="lost"):
        thread.call(lambda: {}["lost"])
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: thread.call(lambda: number * 2), range(100))) == list(range(0, 200, 2))


def test_the_thread_does_not_keep_what_it_was_given() -> None:
    thread, value = DaemonThread("ours"), np.zeros(3)
    gone = threading.Event()
    weakref.finalize(value, gone.set)
    thread.call(partial(np.sum, value))
    del value
    assert gone.wait(5)


def test_a_call_from_the_thread_itself_is_made_at_once() -> None:
    thread = DaemonThread("ours")
    assert thread.post(lambda: thread.call(lambda: 3)).result(5) == 3


def test_its_name_tells_whether_it_is_in_the_middle_of_something() -> None:
    thread = DaemonThread("ours")
    assert thread.call(lambda: thread.name) == WORKER_NAME
    assert thread.name == "ours"
