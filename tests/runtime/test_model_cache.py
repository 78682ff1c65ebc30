from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import describe

from stmask_deploy.errors import InputError
from stmask_deploy.runtime.model import load
from stmask_deploy.runtime.model_cache import held_cache, make_cache
from stmask_deploy.runtime.opening import open_backend


def test_compiled_models_are_kept_and_compute_the_same(bundle: Path, tmp_path: Path) -> None:
    path = describe().graph_path(bundle, "frame", "openvino")
    feeds = {"frame": np.full((1, 40, 64, 3), 51, np.uint8)}
    plain = open_backend("openvino", path, device="cpu").run(feeds)
    first = open_backend("openvino", path, device="cpu", cache=tmp_path / "cache").run(feeds)
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    second = open_backend("openvino", path, device="cpu", cache=tmp_path / "cache")
    found = second.run(feeds)
    assert kept and {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()} == kept
    assert second.metadata == describe() and set(second.outputs) == set(plain)
    for name, values in plain.items():
        assert np.array_equal(first[name], values) and np.array_equal(found[name], values)
    assert np.array_equal(second.run(feeds, ["boxes"])["boxes"], plain["boxes"])


def test_a_folder_may_be_a_string(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache"
    assert make_cache(str(path)) == path and path.is_dir()
    assert make_cache(path) == path


def test_the_api_takes_a_string(bundle: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": str(tmp_path / "cache")}
    load(bundle, "openvino", **options)
    assert any((tmp_path / "cache").iterdir())


def test_a_folder_that_cannot_be_made(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cache folder .* cannot be made .*; choose another one"):
        open_backend("openvino", describe().graph_path(bundle, "frame", "openvino"), cache=tmp_path / "file" / "x")


def test_one_at_a_time_compiles_into_a_folder(bundle: Path, tmp_path: Path) -> None:
    path, cache = describe().graph_path(bundle, "temporal", "openvino"), tmp_path / "cache"
    opening = threading.Thread(target=open_backend, args=("openvino", path), kwargs={"device": "cpu", "cache": cache})
    with held_cache(make_cache(cache)):
        opening.start()
        opening.join(1)
        assert opening.is_alive() and not list(cache.glob("*.blob"))
    opening.join(60)
    assert not opening.is_alive() and list(cache.glob("*.blob"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_meanwhile_does_not_hold_it_on(tmp_path: Path) -> None:
    with held_cache(tmp_path):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    start = time.monotonic()
    try:
        with held_cache(tmp_path):
            assert time.monotonic() - start < 30
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_without_a_folder_or_a_lock_nothing_is_held(tmp_path: Path) -> None:
    with held_cache(None), held_cache(tmp_path / "missing"):
        pass
    assert not list(tmp_path.iterdir())
