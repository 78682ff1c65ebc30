"""Sources that do not wait for whoever reads them: cameras and network streams."""
from __future__ import annotations

import itertools
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stmask_deploy.workers import WORKER_NAME

from .frame_source import Frame, FrameSource, Image

WAKE_S = 0.1  # how often waiting ends to see whether it should go on
CLOSE_S = 1.0  # how long closing waits for the thread, which may be waiting for the device


class _Picture(NamedTuple):
    image: Image
    read_s: float  # on the monotonic clock


class LiveSource(FrameSource):
    """A thread reads all pictures from the moment of opening and keeps only the newest one, which is the next frame.

    So a frame is never older than the time between two pictures, however slowly frames are asked for. Pictures that
    are replaced by newer ones count as `skipped_frames`, once iteration has begun. `time_s` is when a picture was read.

    Subclasses call `_start` at the end of their constructor.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.fps, self.num_frames = name, None, None
        self._is_closed = threading.Event()
        self._is_stopped: Callable[[], bool] = self._is_closed.is_set
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()  # guards the rest
        self._newest: _Picture | None = None
        self._counts: Counter[str] = Counter()  # what happened since the last frame
        self._has_ended = False
        self._failure: BaseException | None = None

    @abstractmethod
    def _pictures(self) -> Iterator[Image]:
        """Yield pictures as they come, all of one size, until the source ends or `_is_closed`; called in the thread."""

    @abstractmethod
    def _release(self) -> None:
        """Release the device or connection; called in the thread, after the last picture."""

    def _start(self) -> None:
        """Start the thread and wait for the first picture.

        Raises:
            Exception: what `_pictures` raised before its first picture.
        """
        self._thread = threading.Thread(target=self._read, name=WORKER_NAME, daemon=True)
        self._thread.start()
        try:
            with self._changed:
                while self._newest is None and not self._has_ended:
                    self._changed.wait(WAKE_S)
                if self._failure is not None:
                    raise self._failure
                assert self._newest is not None
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
                if self._is_closed.is_set():
                    break
        except BaseException as error:  # it is raised where frames are asked for
            failure = error
        finally:
            self._release()
        with self._changed:
            self._failure, self._has_ended = failure, True
            self._changed.notify()

    def _note(self, **counts: int) -> None:
        """Add to the damage counts, from the thread."""
        with self._changed:
            self._counts.update(counts)

    def stop_when(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped

    def _frames(self) -> Iterator[Frame]:
        start_s = None
        for index in itertools.count():
            picture = self._take()
            if picture is None:
                return
            self._check_size(picture.image, f"frame {index} of {self.name}")
            start_s = picture.read_s if start_s is None else start_s
            yield Frame(index, picture.read_s - start_s, picture.image)

    def _take(self) -> _Picture | None:
        """Wait for a picture; None if there will be none, or the wait is to end."""
        with self._changed:
            while self._newest is None and not (self._has_ended or self._is_left or self._is_stopped()):
                self._changed.wait(WAKE_S)
            picture, self._newest = self._newest, None
            self._count(**self._counts)
            self._counts.clear()
            if picture is None and self._failure is not None:
                raise self._failure
        return picture

    def close(self) -> None:
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
