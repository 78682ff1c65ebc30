from __future__ import annotations

import threading

from stmask_deploy.workers import WORKER_NAME, are_workers_busy


def test_only_living_threads_of_that_name_count() -> None:
    go_on = threading.Event()
    threads = [threading.Thread(target=go_on.wait, args=(30,), name=name) for name in ("other", WORKER_NAME)]
    try:
        for thread, expected in zip(threads, (False, True), strict=True):
            assert not are_workers_busy()
            thread.start()
            assert are_workers_busy() is expected
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
    assert not are_workers_busy()
