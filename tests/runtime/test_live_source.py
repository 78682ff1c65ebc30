from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import numpy as np
import pytest
from media import picture, shown_index

from stmask_deploy.errors import DeviceError, InputError
from stmask_deploy.runtime import live_source
from stmask_deploy.runtime.frame_source import Damage
from stmask_deploy.runtime.live_source import LiveSource
from stmask_deploy.runtime.tracking import track_overlapped

WAIT_S = 10


class Puppet(LiveSource):
    """Gives what it is handed: pictures, an exception, or None for the end."""

    kind = "camera"

    def __init__(self, *first: np.ndarray | Exception | None) -> None:
        super().__init__("puppet")
        self.given: SimpleQueue[np.ndarray | Exception | None] = SimpleQueue()
        self.num_released = 0
        self.seen = threading.Semaphore(0)  # items handed over
        for item in first:
            self.given.put(item)
        self._start()

    def _pictures(self) -> Iterator[np.ndarray]:
        while (item := self.given.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
            self.seen.release()  # after it has become the newest

    def _disconnect(self) -> None:
        self.num_released += 1

    def give(self, item: np.ndarray | Exception | None) -> None:
        self.given.put(item)
        if isinstance(item, np.ndarray):
            assert self.seen.acquire(timeout=WAIT_S)

    def end(self) -> None:
        self.given.put(None)
        assert self._thread is not None
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    source = Puppet(picture(0))
    assert source.seen.acquire(timeout=WAIT_S)
    yield source
    source.end()


def test_the_newest_picture_is_the_next_frame(puppet: Puppet) -> None:
    frames = iter(puppet)
    assert shown_index(next(frames).image) == 0
    for index in range(1, 5):
        puppet.give(picture(index))
    frame = next(frames)
    assert (frame.index, shown_index(frame.image)) == (1, 4)
    assert puppet.damage == Damage(frames=2, skipped_frames=3)
    assert not puppet.damage.is_damaged and puppet.is_live


def test_what_comes_before_frames_are_asked_for_is_not_missed(puppet: Puppet) -> None:
    """A model takes seconds to load."""
    for index in range(1, 5):
        puppet.give(picture(index))
    assert shown_index(next(iter(puppet)).image) == 4
    assert puppet.damage == Damage(frames=1)


def test_every_picture_is_delivered_or_counted() -> None:
    source = Puppet(picture(0))
    frames = iter(source)
    shown = [shown_index(next(frames).image)]
    for index in range(1, 200):
        source.given.put(picture(index))
    source.given.put(None)
    for frame in frames:
        shown.append(shown_index(frame.image))
        time.sleep(0.001 * (frame.index % 3))
    assert source.damage == Damage(frames=len(shown), skipped_frames=200 - len(shown))
    assert shown == sorted(shown) and shown[-1] == 199  # the last one waits, however late it is asked for


def test_times_count_from_the_first_frame(puppet: Puppet, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(live_source.time, "monotonic", lambda: now[0])
    puppet.give(picture(1))
    now[0] = 107.0  # later than it was read: no matter
    frames = iter(puppet)
    assert next(frames).time_s == 0.0
    puppet.give(picture(2))
    now[0] = 200.0
    assert next(frames).time_s == 7.0


def test_the_end_comes_after_the_last_picture(puppet: Puppet) -> None:
    frames = iter(puppet)
    next(frames)
    puppet.give(picture(1))
    puppet.end()
    assert shown_index(next(frames).image) == 1
    assert next(frames, None) is None
    assert puppet.num_released == 1


def test_a_failure_comes_after_the_last_picture(puppet: Puppet) -> None:
    frames = iter(puppet)
    next(frames)
    puppet.give(picture(1))
    puppet.give(InputError("gone"))
    puppet.end()
    assert shown_index(next(frames).image) == 1
    with pytest.raises(InputError, match="gone"):
        next(frames)
    assert puppet.num_released == 1


def test_a_failure_before_the_first_picture() -> None:
    with pytest.raises(DeviceError, match="no camera"):
        Puppet(DeviceError("no camera"))


def test_a_change_of_size(puppet: Puppet) -> None:
    frames = iter(puppet)
    next(frames)
    puppet.give(picture(1, (24, 32)))
    with pytest.raises(InputError, match="frame 1 of puppet is 32x24"):
        next(frames)


def _ended_while_waiting(puppet: Puppet, end: Callable[[], None]) -> list[int]:
    frames = iter(puppet)
    found = [next(frames).index]
    waiting = threading.Thread(target=lambda: found.extend(frame.index for frame in frames), daemon=True)
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    end()
    waiting.join(WAIT_S)
    assert not waiting.is_alive()
    return found


def test_a_wait_ends_when_it_is_stopped(puppet: Puppet) -> None:
    stopped = threading.Event()
    puppet.stop_when(stopped.is_set)
    assert _ended_while_waiting(puppet, stopped.set) == [0]
    assert puppet.damage == Damage(frames=1)


def test_a_picture_that_has_come_is_given_although_stopped(puppet: Puppet) -> None:
    """Whoever stops decides after each frame; what counts is that nobody waits."""
    puppet.stop_when(lambda: True)
    assert [frame.index for frame in puppet] == [0]


def test_a_wait_ends_when_the_source_is_left(puppet: Puppet) -> None:
    assert _ended_while_waiting(puppet, lambda: puppet.__exit__(None, None, None)) == [0]


def test_an_error_of_the_consumer_is_not_held_up(puppet: Puppet) -> None:
    """The thread that reads ahead waits for a picture, perhaps for minutes."""

    class Failing:
        lost_candidates = 0

        def detect(self, *_: object) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(track_overlapped(Failing(), puppet, None, None, 1))


def test_a_device_that_cannot_be_released(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Puppet) -> None:
        raise OSError("stuck")

    monkeypatch.setattr(Puppet, "_disconnect", fail)
    source = Puppet(picture(0), None)
    with pytest.raises(OSError, match="stuck"):
        list(source)


def test_closing_does_not_wait_for_a_device_that_hangs(puppet: Puppet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_source, "CLOSE_S", 0.05)
    with puppet:
        next(iter(puppet))
    assert puppet.num_released == 0  # it is in use
    puppet.given.put(picture(1))
    puppet.end()
    assert puppet.num_released == 1  # by the thread, as soon as the device answers


def test_a_closed_source_leaves_memory_without_the_collector() -> None:
    gc.disable()
    try:
        puppet = Puppet(picture(0), None)
        puppet.close()
        left = weakref.ref(puppet)
        del puppet
        assert left() is None
    finally:
        gc.enable()


def test_closing_ends_the_thread() -> None:
    class Endless(Puppet):
        def _pictures(self) -> Iterator[np.ndarray]:
            while True:
                yield picture()

    source = Endless()
    with source:
        assert len([frame for frame, _ in zip(source, range(3), strict=False)]) == 3
    assert source._thread is not None and not source._thread.is_alive()
    assert source.num_released == 1


HANGING = """
import time
from stmask_deploy.runtime import live_source
from stmask_deploy.runtime.live_source import LiveSource
from stmask_deploy.runtime.tracking import track_overlapped
live_source.CLOSE_S = 0.05

class Hanging(LiveSource):
    kind = "camera"
    def _pictures(self):
        time.sleep(600)
        yield
    def _disconnect(self):
        pass

live_source.END_S = 0.05
source = Hanging("hanging")
source._changed.wait = lambda *_: 1 / 0  # as Ctrl-C
source._start()
"""


def test_a_device_that_hangs_does_not_keep_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


LEFT_OPEN = """
import sys, time
from stmask_deploy.runtime.live_source import LiveSource

class Busy(LiveSource):
    kind = "camera"
    def _pictures(self):
        import numpy as np
        while True:
            yield np.zeros((4, 4, 3), np.uint8)
            time.sleep(0.3)
    def _disconnect(self):
        print("released")

source = Busy("busy")
source._start()
next(iter(source))
"""


def test_a_source_that_is_left_open_is_closed_at_exit() -> None:
    """Its thread would come back from a library into an interpreter that has shut down, which crashes."""
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "released\n", "")
