"""Sources that do not wait for whoever reads them: cameras and network streams."""
from __future__ import annotations

import atexit
import itertools
import threading
import time
import weakref
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stmask_deploy.errors import InputError
from stmask_deploy.workers import WORKER_NAME

from .frame_source import Frame, FrameSource, Image

WAKE_S = 0.1  # how often waiting ends to see whether it should go on
CLOSE_S = 1.0  # how long closing waits for the thread, which may be waiting for the device
END_S = 20.0  # the same at program exit: longer than any wait for a network


class _Picture(NamedTuple):
    image: Image
    read_s: float  # on the monotonic clock


class LiveSource(FrameSource):
    """A thread reads all pictures from the moment of opening and keeps only the newest one, which is the next frame.

    So a frame is not older than the time between two pictures, however slowly frames are asked for. Pictures that are
    replaced by newer ones count as `skipped_frames`, once iteration has begun. `time_s` is when a picture was read.

    Subclasses call `_start` at the end of their constructor.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.fps, self.num_frames = name, None, None
        self._is_ending = threading.Event()
        self._stops: list[Callable[[], bool]] = [self._is_ending.is_set]
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()  # guards the rest
        self._newest: _Picture | None = None
        self._counts: Counter[str] = Counter()  # what happened since the last frame
        self._has_ended = False
        self._failure: BaseException | None = None

    @abstractmethod
    def _pictures(self) -> Iterator[Image]:
        """Yield pictures as they come, all of one size, until the source ends or `_is_ending`; called in the thread."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Release the device or connection; called in the thread, after the last picture."""

    def _start(self) -> None:
        """Start the thread and wait for the first picture.

        Raises:
            Exception: what `_pictures` raised before its first picture.
        """
        self._thread = threading.Thread(target=self._read, name=WORKER_NAME, daemon=True)
        self._thread.start()
        _LIVING.add(self)
        try:
            with self._changed:
                self._wait()
                if self._newest is None:
                    raise self._failure or InputError(f"{self.name} was stopped before it gave a picture")
                self.height, self.width = self._newest.image.shape[:2]
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        failure = None
        try:
            for image in self._pictures():
                with self._changed:
                    self._counts["skipped_frames"] += self._newest is not None and self._started
                    self._newest = _Picture(image, time.monotonic())
                    self._changed.notify()
                if self._is_ending.is_set():
                    break
        except BaseException as error:  # it is raised where frames are asked for
            failure = error
        try:
            self._disconnect()
        except Exception as error:
            failure = failure or error
        with self._changed:
            self._failure, self._has_ended = failure, True
            self._changed.notify()

    def _note(self, **counts: int) -> None:
        """Add to the damage counts, from the thread."""
        with self._changed:
            self._counts.update(counts)

    def stop_when(self, is_stopped: Callable[[], bool]) -> None:
        self._stops.append(is_stopped)

    def _frames(self) -> Iterator[Frame]:
        start_s = None
        for index in itertools.count():
            picture = self._take()
            if picture is None:
                return
            self._check_size(picture.image, f"frame {index} of {self.name}")
            start_s = picture.read_s if start_s is None else start_s
            yield Frame(index, picture.read_s - start_s, picture.image)

    def _wait(self) -> None:
        """Wait until there is a picture, unless there will be none, or the wait is to end."""
        while self._newest is None and not (self._has_ended or self.is_closed or any(stop() for stop in self._stops)):
            self._changed.wait(WAKE_S)

    def _take(self) -> _Picture | None:
        """The next picture; None if there is none, see `_wait`."""
        with self._changed:
            self._wait()
            picture, self._newest = self._newest, None
            self._count(**self._counts)
            self._counts.clear()
            if picture is None and self._failure is not None:
                raise self._failure
        return picture

    def _release(self) -> None:
        self._end(CLOSE_S)

    def _end(self, timeout_s: float) -> None:
        self._is_ending.set()
        if self._thread is not None:
            self._thread.join(timeout_s)


# A source stays alive as long as its thread. A thread that returns from a library call after the interpreter has shut
# down crashes the process.
_LIVING: weakref.WeakSet[LiveSource] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for source in tuple(_LIVING):
        source._end(END_S)
