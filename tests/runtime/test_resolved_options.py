"""What a run does with its options: the arguments of trackers, limits in frames, notes on memory."""
from __future__ import annotations

from typing import Any

import pytest
from tiny_bundles import describe

from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.pipeline import make_tracker
from stmask_deploy.tracking_config import TRACKERS


@pytest.mark.parametrize("tracker", list(TRACKERS))
def test_trackers_have_the_defaults_of_the_options(tracker: str) -> None:
    made = make_tracker(RunOptions(tracker=tracker).resolve(describe(), is_live=False))
    plain = type(made)()
    settings = {name: value for name, value in vars(plain).items() if name != "_tracks"}
    assert settings and {name: getattr(made, name) for name in settings} == settings


def test_tracker_settings_are_those_the_tracker_reads() -> None:
    def names(**given: Any) -> set[str]:
        return set(RunOptions(**given).resolve(describe(), is_live=False).tracker_settings())

    assert names() == {"new_object_score", "score_threshold", "retire_after", "max_age_shown"}
    assert names(tracker="paper") == {"alpha", "beta", "epsilon", "embedding_momentum", "max_cover", "score_threshold",
                                      "retire_after", "max_age_shown"}
    assert names(tracker="frame") == {"new_object_score", "score_threshold", "retire_after"}


@pytest.mark.parametrize("every", [1, 3])
def test_limits_count_key_frames(every: int) -> None:
    """Found in a key frame, an object of age a has missed as many as lie in the a frames since."""
    def missed(age: int) -> int:
        return sum((frame + 1) % every == 0 for frame in range(age))

    options = RunOptions(detect_every=every, max_age_shown=2, retire_after=4).resolve(describe(), is_live=False)
    settings = options.tracker_settings()
    for name, limit in (("max_age_shown", 2), ("retire_after", 4)):
        assert [age for age in range(30) if missed(age) <= limit][-1] == settings[name]
    assert ("4 key frames are" if every > 1 else "4 frames are") in options.memory_note


def test_only_bounded_memory_has_something_to_say() -> None:
    assert RunOptions().resolve(describe(), is_live=False).memory_note == ""
    assert "40 frames" in RunOptions(retire_after=40).resolve(describe(), is_live=False).memory_note


def test_only_the_frame_tracker_propagates_nothing() -> None:
    resolved = {name: RunOptions(tracker=name).resolve(describe(), is_live=False) for name in TRACKERS}
    assert {name: one.propagates for name, one in resolved.items()} == {"released": True, "paper": True,
                                                                        "frame": False}
