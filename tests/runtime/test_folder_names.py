from __future__ import annotations

from pathlib import Path

import pytest

from stmask_deploy.runtime.folder_names import folder_name, folder_names


@pytest.mark.parametrize(("source", "folder"), [
    ("a/street.v2.mp4", "street.v2"), ("my cat.png", "my-cat"), ("clip.v2", "clip.v2"), (".", "here"),
    ("link", "link"), ("link/", "link"), ("..", "above"), ("clip.v2/..", "here"),
    ("07", "camera-7"), ("8", "8"), ("...mp4", "video"), ("..mp4", "video"), ("/", "video"), (".mp4", "mp4"),
    ("rtsp://me:pass@host.lan:554/live/1?key=2", "host.lan-554-live-1"), ("udp://239.0.0.1:5000", "239.0.0.1-5000"),
    ("http://[::1]/", "1"), ("tcp://", "video"), ("http://../..", "video"),
])
def test_folder_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, folder: str) -> None:
    here = tmp_path / "above" / "here"
    (here / "clip.v2").mkdir(parents=True)
    (here / "link").symlink_to(here / "clip.v2")
    (here / "8").mkdir()
    monkeypatch.chdir(here)
    assert folder_name(source) == folder


def test_names_of_several_do_not_depend_on_what_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = ["a/clip.mp4", "b/clip.mp4", "0", "clip-2.avi", "c/clip.mkv", "d/CLIP.mp4"]  # one name on some systems
    expected = ["clip", "clip-2", "camera-0", "clip-2-2", "clip-3", "CLIP-4"]
    assert folder_names(sources) == expected
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "clip.mp4").touch()
    assert folder_names(sources) == expected


def test_places_one_may_not_look_at(shut_folder: Path) -> None:
    assert folder_names([str(shut_folder / "clip.mp4"), "a" * 300]) == ["clip", "a" * 300]


def test_two_ways_to_write_an_accent_are_one_name() -> None:
    assert folder_names(["a/caf\u00e9.mp4", "b/cafe\u0301.mp4"]) == ["caf\u00e9", "cafe\u0301-2"]
