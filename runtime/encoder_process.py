"""Encoding of results as lines of results.jsonl in a separate process, several frames ahead of the consumer."""
from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType

from .encoder_server import READY
from .result import FrameResult
from .tracking import TrackedFrame

DEPTH = 4  # frames in flight to the process and back
PATIENCE_S = 5  # timeout for an answer of the process, or for its exit


class EncoderProcess:
    """Context manager over a process that encodes results, masks included.

    Encoding consists of many short steps that do not release the GIL, so in mode throughput it would hold up the
    threads that feed a GPU.

    The process takes a moment to start. Until then, or if it dies or hangs, results are encoded on demand in this
    process, with the same outcome.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = Event()
        self._requests: SimpleQueue[tuple[int, FrameResult] | None] = SimpleQueue()  # None marks the end
        self._answers: SimpleQueue[tuple[int, bytes | None] | None] = SimpleQueue()  # likewise
        self._number = 0  # number of the last request
        self._has_ended = False

    def __enter__(self) -> EncoderProcess:
        if not _is_python(sys.executable):
            return self
        try:
            # The process must import this very package, whatever its working directory; which may have been deleted.
            paths = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path if isinstance(path, str)),
                     "PYTHONSAFEPATH": "1"}
            self._process = subprocess.Popen(  # noqa: S603  this Python, on this package
                [sys.executable, "-m", f"{__package__}.encoder_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, env={**os.environ, **paths}, start_new_session=True)
        except OSError:
            return self
        for work in (self._read, self._write):  # so that the caller never blocks on a pipe
            Thread(target=work, args=(self._process,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._process is None:
            return
        self._requests.put(None)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        self._end()

    def ahead(self, frames: Generator[TrackedFrame, None, None]) -> Generator[TrackedFrame, None, None]:
        """Yield the same frames, with their lines; reads `frames` `DEPTH` frames ahead and closes it.

        An exception from `frames` is raised after the frames before it.
        """
        pending: deque[tuple[TrackedFrame, int]] = deque()
        failures: list[Exception] = []  # taken out where it is raised, see `Chain._work`
        with closing(frames):
            while not failures:
                try:
                    tracked = next(frames)
                except StopIteration:
                    break
                except Exception as error:
                    failures.append(error)
                    break
                pending.append((tracked, self._send(tracked.result)))
                if len(pending) > DEPTH:
                    yield self._completed(*pending.popleft())
            while pending:
                yield self._completed(*pending.popleft())
        if failures:
            raise failures.pop()

    def _send(self, result: FrameResult) -> int:
        """Queue a request and return its number; 0 if none is sent."""
        if self._process is None or self._has_ended or not self._is_ready.is_set():
            return 0
        self._number += 1
        self._requests.put((self._number, result))
        return self._number

    def _completed(self, tracked: TrackedFrame, number: int) -> TrackedFrame:
        return dataclasses.replace(tracked, line=self._receive(number)) if number else tracked

    def _receive(self, number: int) -> bytes | None:
        """The answer to a request; None if there is none, or the process has ended or hangs."""
        while not self._has_ended:
            try:
                answer = self._answers.get(timeout=PATIENCE_S)
            except Empty:
                answer = None
            if answer is None:
                self._end()
            elif answer[0] == number:  # other answers belong to abandoned frames
                return answer[1]
        return None

    def _end(self) -> None:
        """Kill the process if it is still running."""
        self._has_ended = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with suppress(OSError), process.stdin as requests:
            while (request := self._requests.get()) is not None:
                pickle.dump(request, requests, protocol=5)
                requests.flush()
            pickle.dump(None, requests)  # a process that was forked meanwhile keeps the pipe open

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with suppress(Exception), process.stdout as answers:  # unpickling what is cut off may raise any of them
            if answers.readline() == READY:
                self._is_ready.set()
                while True:
                    self._answers.put(pickle.load(answers))  # noqa: S301  written by our own process
        self._answers.put(None)


def _is_python(executable: str | None) -> bool:
    """Whether a program runs modules; others embed Python: servers, and applications frozen into one file."""
    return Path(executable or "").name.lower().startswith(("python", "pypy")) and not getattr(sys, "frozen", False)
