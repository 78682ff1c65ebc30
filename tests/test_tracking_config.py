"""`TrackingConfig`: defaults, text, and what it refuses."""
from __future__ import annotations

from typing import Any

import pytest

from stmask_deploy.errors import InputError
from stmask_deploy.tracking_config import TRACKERS, TrackingConfig


def test_the_default_is_the_released_code() -> None:
    assert TrackingConfig().tracker == "released" and TrackingConfig().settings == {"new_object_score": 1.4}


@pytest.mark.parametrize("tracker", list(TRACKERS))
def test_settings_are_those_the_tracker_reads(tracker: str) -> None:
    assert TrackingConfig(tracker).settings == TRACKERS[tracker]


def test_what_is_given_replaces_the_default() -> None:
    given = {"alpha": 0.0, "epsilon": -1.0}
    assert TrackingConfig("paper", **given).settings == {**TRACKERS["paper"], **given}


@pytest.mark.parametrize("config, text", [
    (TrackingConfig(), "released,new_object_score=1.4"),
    (TrackingConfig("paper", alpha=4, epsilon=0.123456789),
     "paper,alpha=4,beta=1,epsilon=0.123456789,embedding_momentum=0,max_cover=1"),
])
def test_text(config: TrackingConfig, text: str) -> None:
    assert str(config) == text


@pytest.mark.parametrize("text, config", [
    ("frame", TrackingConfig("frame")),
    ("paper, alpha=4,epsilon = -1.6", TrackingConfig("paper", alpha=4.0, epsilon=-1.6)),
    *((str(TrackingConfig(tracker)), TrackingConfig(tracker, **settings)) for tracker, settings in TRACKERS.items()),
])
def test_text_is_read(text: str, config: TrackingConfig) -> None:
    assert TrackingConfig.parse(text) == config


@pytest.mark.parametrize("text, message", [
    ("", "'' is not known"),
    ("sort", "known: released, paper, frame"),
    ("paper,alpha", "alpha must be a number, found ''"),
    ("paper,alpha=x", "alpha must be a number, found 'x'"),
    ("paper,alpha=1,alpha=2", "each setting once, found 'alpha=2'"),
    ("paper,gamma=1", "settings: alpha, beta, epsilon, embedding_momentum, max_cover, new_object_score"),
    ("paper,", "found ''"),
    ("released,alpha=1", "only by: paper"),
    ("paper,epsilon=nan", "epsilon must be in"),
])
def test_text_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrackingConfig.parse(text)


@pytest.mark.parametrize("values, message", [
    ({"tracker": "sort"}, "'sort' is not known; known: released, paper, frame"),
    ({"alpha": 1.0}, "alpha is not read by the released tracker, only by: paper"),
    ({"tracker": "paper", "new_object_score": 1.0}, "only by: released, frame"),
    ({"tracker": "paper", "alpha": -0.1}, r"alpha must be in 0\.\.1000, got -0.1"),
    ({"tracker": "paper", "epsilon": float("nan")}, "epsilon must be in"),
    ({"tracker": "paper", "epsilon": 10 ** 400}, "epsilon must be in"),
    ({"tracker": "paper", "embedding_momentum": 1.1}, r"embedding_momentum must be in 0\.\.1, got 1.1"),
    ({"tracker": "paper", "max_cover": -0.1}, r"max_cover must be in 0\.\.1, got -0.1"),
    ({"tracker": "frame", "max_cover": 0.5}, "max_cover is not read by the frame tracker, only by: paper"),
    ({"new_object_score": 1e6}, "new_object_score must be in"),
])
def test_impossible_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrackingConfig(**values)
