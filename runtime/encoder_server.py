"""The process behind `EncoderProcess`: it reads results and answers with their lines of results.jsonl."""
from __future__ import annotations

import pickle
import signal
import sys
from typing import BinaryIO

from .result import FrameResult
from .results_jsonl import frame_line

READY = b"ready\n"


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until one is None, or the stream ends.

    A request is a pickle of a number and a `FrameResult`. An answer is a pickle of the number and the line, which is
    None if the result cannot be encoded.
    """
    answers.write(READY)
    answers.flush()
    while True:
        try:
            request = pickle.load(requests)  # noqa: S301  written by the parent process
        except EOFError:
            return
        if request is None:
            return
        number, result = request
        pickle.dump((number, _encoded(result)), answers)
        answers.flush()


def _encoded(result: FrameResult) -> bytes | None:
    try:
        return frame_line(result)
    except Exception:  # the parent process will fail in the same way, and report it
        return None


def main() -> None:
    """Serve the parent process until it closes the pipe or exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
