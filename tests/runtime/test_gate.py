"""The gate: any number pass together, nobody beside the one that is alone."""
from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stmask_deploy.runtime.gate import Gate

WAIT_S = 20


def test_many_pass_together() -> None:
    gate, together = Gate(), threading.Barrier(3, timeout=WAIT_S)

    def go(_: int) -> None:
        with gate.passing():
            together.wait()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(go, range(3)))


def test_one_is_alone() -> None:
    gate, inside, most = Gate(), [0, 0], [0, 0]

    def go(number: int) -> None:
        kind = number % 5 == 0
        with gate.alone() if kind else gate.passing():
            inside[kind] += 1
            most[kind] = max(most[kind], inside[kind])
            assert not (inside[True] and inside[False]) and inside[True] <= 1
            time.sleep(random.Random(number).uniform(0, 0.002))
            inside[kind] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(go, range(200)))
    assert most[True] == 1 < most[False]


def test_who_wants_to_be_alone_goes_before_those_who_come_later() -> None:
    gate, order = Gate(), list[str]()
    is_inside, may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with gate.passing():
            is_inside.set()
            may_leave.wait(WAIT_S)
            order.append("first")

    def enter(name: str) -> None:
        with gate.alone() if name == "alone" else gate.passing():
            order.append(name)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    is_inside.wait(WAIT_S)
    for name in ("alone", "later"):
        threads.append(threading.Thread(target=enter, args=(name,)))
        threads[-1].start()
        time.sleep(0.1)
    assert not order
    may_leave.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["first", "alone", "later"]


@pytest.mark.parametrize("kind", ["passing", "alone"])
def test_an_exception_opens_it_again(kind: str) -> None:
    gate = Gate()
    with pytest.raises(RuntimeError, match="inside"), getattr(gate, kind)():
        raise RuntimeError("inside")
    with gate.alone():
        pass
    with gate.passing():
        pass
