from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from stmask_deploy.environment import available_cpus, installed_versions


def test_versions_of_what_is_there() -> None:
    assert installed_versions(["no-such-package", "numpy"]) == {"numpy": np.__version__}
    assert installed_versions([]) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_cores_that_a_process_may_not_use_do_not_count() -> None:
    before = os.sched_getaffinity(0)
    assert available_cpus() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_where_affinity_is_unknown_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, expected in ((8, 8), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert available_cpus() == expected
