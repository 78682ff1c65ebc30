"""Runs each measured subject in its own process, which works during its turn and sleeps during the others'."""
from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from stmask_deploy.ending_signals import ended_by_signals
from stmask_deploy.errors import StmaskError
from stmask_deploy.runtime.backends import one_line
from stmask_deploy.spawning import spawning

_TURN, _STOP = "turn", "stop"
_PATIENCE = 10.0  # seconds to wait for a process to end
_PATIENCE_STOPPED = 3.0  # for one that was told to end in the middle of its work


class Subject(Protocol):
    """What is measured, inside its process. Its facts and results must be picklable."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts known once the subject is open."""
        ...

    def turn(self) -> Any:
        """Warm up, then measure once."""
        ...


Opener = Callable[[Any], AbstractContextManager[Subject]]


class Worker:
    """Context manager for the process of one subject.

    Args:
        open_subject: a module-level function, called in the process.
        job: its argument.

    Attributes:
        facts: see `Subject.facts`; empty if the subject is not available.
        reason: why it cannot be measured, in one line; empty if it can.
        peak_bytes: peak memory of the process so far; None if the system does not report it.
    """

    def __init__(self, open_subject: Opener, job: Any) -> None:
        context = multiprocessing.get_context("spawn")  # no subject inherits another's libraries
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(open_subject, job, theirs), daemon=True)
        with spawning():
            self._process.start()
        theirs.close()
        self.reason = ""
        self.peak_bytes: int | None = None
        self.facts: Mapping[str, Any] = self._receive() or {}

    def turn(self) -> Any:
        """What the subject measured; None once it has failed, with the cause in `reason`."""
        if self.reason:
            return None
        self._send(_TURN)
        return None if self.reason else self._receive()

    def _send(self, word: str) -> None:
        try:
            self._connection.send(word)
        except OSError:  # the process ended during the others' turns
            self.reason = self._ending()

    def _ending(self) -> str:
        self._process.join(_PATIENCE)
        return f"its process ended with exit code {self._process.exitcode}"

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):  # possibly in the middle of an answer
            answer = StmaskError(self._ending())
        if isinstance(answer, Exception):
            self.reason = one_line(answer)
            return None
        value, self.peak_bytes = answer
        return value

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is not None:  # the process may be in the middle of a turn
            self._process.terminate()
        elif not self.reason:
            self._send(_STOP)
        self._process.join(_PATIENCE if kind is None else _PATIENCE_STOPPED)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


def _serve(open_subject: Opener, job: Any, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be put off
    try:
        with ended_by_signals(), open_subject(job) as subject:  # also then the subject's files are closed
            connection.send((subject.facts, peak_memory()))
            while connection.recv() == _TURN:
                connection.send((subject.turn(), peak_memory()))
    except (EOFError, ConnectionError):
        return  # the parent is gone
    except Exception as error:  # whatever the cause, only this row cannot be measured
        text = one_line(error) if isinstance(error, (StmaskError, ImportError)) else (
            f"{type(error).__name__}: {one_line(error)}")
        connection.send(StmaskError(text))


def peak_memory() -> int | None:
    """Peak memory of this process in bytes; None if the system does not report it.

    On Linux `getrusage` would include the memory the parent used when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
