"""A row in a process of its own, that measures when it is told to and sleeps while others do."""
from __future__ import annotations

import multiprocessing
from itertools import islice
from multiprocessing.connection import Connection

from rows import Job, Sample, open_row

from stmask_deploy.errors import StmaskError
from stmask_deploy.runtime.backends import one_line

STOP = 0


class RowProcess:
    """The parent's side.

    Attributes:
        device: what the row runs on, in words; empty while it is not available.
        reason: why the row cannot run; empty while it can.
    """

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")  # nothing of one row's libraries is in another's process
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(job, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.device = self.reason = ""
        answer = self._receive()
        if isinstance(answer, str):
            self.device = answer

    def measure(self, count: int) -> list[Sample]:
        """The next `count` frames; none once the row cannot go on, and `reason` says why."""
        if self.reason:
            return []
        self._connection.send(count)
        answer = self._receive()
        return answer if isinstance(answer, list) else []

    def _receive(self) -> object:
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join()
            answer = StmaskError(f"its process ended with exit code {self._process.exitcode}")
        if isinstance(answer, Exception):
            self.device, self.reason = "", one_line(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if not self.reason:
            self._connection.send(STOP)
        self._process.join()
        self._connection.close()


def serve(job: Job, connection: Connection) -> None:
    """The child's side: says what it runs on, then answers each number of frames with their samples."""
    try:
        with open_row(job) as (device, samples):
            connection.send(device)
            while count := connection.recv():
                measured = list(islice(samples, count))
                if len(measured) < count:
                    raise StmaskError(f"the video ended {count - len(measured)} frames too early; give a longer one")
                connection.send(measured)
    except (StmaskError, ImportError) as error:
        connection.send(StmaskError(one_line(error)))
