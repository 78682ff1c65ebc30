"""Threads that may still be busy when a command ends."""
from __future__ import annotations

import threading

WORKER_NAME = "stmask-worker"  # of these threads


def are_workers_busy() -> bool:
    """Whether one of them is alive."""
    return any(thread.name == WORKER_NAME for thread in threading.enumerate())
