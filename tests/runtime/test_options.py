"""Options are checked once, and say what is wrong."""
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tiny_bundles import describe

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import InputError
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.tracking_config import TrackingConfig

NO_TEMPORAL = describe(model=ModelConfig(class_names=("cat",), temporal=None))
PAPER = TrackingConfig("paper", alpha=4.0, epsilon=1.6)


def test_defaults_are_the_released_codes() -> None:
    assert RunOptions().resolve(describe(), is_live=False).to_dict() == {
        "score_threshold": 0.05, "nms": "cross-class", "nms_iou": 0.5, "top_k": 200, "max_detections": 100,
        "tracker": "released", "new_object_score": 1.4, "score_decay": 0.95, "max_age_shown": 10, "memory": "exact",
        "detect_every": 1}


@pytest.mark.parametrize(("given", "is_live", "decided"), [
    ({}, True, {"memory": "bounded", "retire_after": 30}),
    ({"memory": "exact"}, True, {"memory": "exact", "retire_after": None}),
    ({"memory": "bounded"}, False, {"memory": "bounded", "retire_after": 30}),
    ({"retire_after": 12}, False, {"memory": "bounded", "retire_after": 12}),
    ({"memory": "bounded", "max_age_shown": 50}, False, {"retire_after": 50}),
    ({"tracker": "paper"}, False, {"alpha": 1.0, "beta": 1.0, "epsilon": 0.7, "new_object_score": None}),
    ({"tracker": "paper", "alpha": 0.0}, False, {"alpha": 0.0, "beta": 1.0}),
    ({"tracker": "frame"}, False, {"tracker": "frame", "new_object_score": 1.4, "score_decay": None,
                                   "max_age_shown": None}),
    ({"tracker": "frame", "retire_after": 5}, False, {"retire_after": 5}),
    ({"max_age_shown": 4, "retire_after": 4}, False, {"retire_after": 4, "score_decay": 0.95}),
])
def test_open_choices_are_decided(given: dict[str, Any], is_live: bool, decided: dict[str, Any]) -> None:
    options = RunOptions(**given).resolve(describe(), is_live)
    assert {name: options.to_dict().get(name) for name in decided} == decided


def test_a_bundle_without_temporal_graph_gets_the_frame_tracker() -> None:
    assert RunOptions().resolve(NO_TEMPORAL, is_live=False).tracking.tracker == "frame"
    with pytest.raises(InputError, match="needs a temporal graph"):
        RunOptions(tracker="paper").resolve(NO_TEMPORAL, is_live=False)


@pytest.mark.parametrize(("given", "decided"), [
    ({}, {"tracker": "paper", "alpha": 4.0, "beta": 1.0, "epsilon": 1.6, "new_object_score": None}),
    ({"tracker": "paper"}, {"alpha": 4.0, "epsilon": 1.6}),
    ({"epsilon": 0.5}, {"tracker": "paper", "alpha": 4.0, "epsilon": 0.5}),
    ({"tracker": "released"}, {"new_object_score": 1.4, "alpha": None, "epsilon": None}),
    ({"tracker": "frame"}, {"new_object_score": 1.4, "alpha": None}),
])
def test_a_bundle_may_name_the_tracking_that_suits_it(given: dict[str, Any], decided: dict[str, Any]) -> None:
    description = describe(model=ModelConfig(class_names=("cat",), tracking=PAPER))
    options = RunOptions(**given).resolve(description, is_live=False)
    assert {name: options.to_dict().get(name) for name in decided} == decided


def test_without_a_temporal_graph_what_suits_the_network_does_not_count() -> None:
    description = describe(model=ModelConfig(class_names=("cat",), temporal=None, tracking=PAPER))
    options = RunOptions().resolve(description, is_live=False)
    assert options.tracking == TrackingConfig("frame") and not options.propagates


@pytest.mark.parametrize(("given", "told"), [
    ({"retire_after": 5}, r"retire_after \(5\) must not be smaller than max_age_shown \(10\)"),
    ({"tracker": "frame", "score_decay": 0.5}, "score_decay is not read by the frame tracker"),
    ({"tracker": "frame", "max_age_shown": 3}, "max_age_shown is not read by the frame tracker"),
])
def test_settings_that_do_not_go_with_the_tracker(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        RunOptions(**given).resolve(describe(), is_live=False)




@pytest.mark.parametrize(("given", "told"), [
    ({"nms": "soft"}, "known: cross-class, per-class"),
    ({"tracker": "sort"}, "known: released, paper, frame"),
    ({"memory": "infinite"}, "known: exact, bounded"),
    ({"score_threshold": 1.5}, "score_threshold must be in 0..1"),
    ({"score_threshold": float("nan")}, "got nan"),
    ({"score_decay": float("-inf")}, "got -inf"),
    ({"top_k": 10 ** 400}, "top_k must be in 1..100000"),
    ({"top_k": True}, "top_k must be a number, got True"),
    ({"nms_iou": -0.1}, "nms_iou"),
    ({"top_k": 0}, "top_k"),
    ({"score_threshold": "0.3"}, "score_threshold must be a number, got '0.3'"),
    ({"detect_every": "2"}, "detect_every must be a number, got '2'"),
    ({"retire_after": 0}, "retire_after"),
    ({"detect_every": 0}, "detect_every must be in 1"),
    *(({name: 1.5}, f"{name} must be a whole number") for name in
      ("top_k", "max_detections", "max_age_shown", "retire_after", "detect_every")),
    ({"retire_after": 30, "memory": "exact"}, "give only one"),
    ({"tracker": "released", "alpha": 1.0}, "alpha is not read by the released tracker, only by: paper"),
    ({"tracker": "paper", "new_object_score": 1.0}, "only by: released, frame"),
])
def test_impossible_options_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        RunOptions(**given)


def test_settings_of_another_tracker_than_the_default_one_are_refused_when_it_is_known() -> None:
    with pytest.raises(InputError, match="alpha is not read by the released tracker"):
        RunOptions(alpha=1.0).resolve(describe(), is_live=False)
    with pytest.raises(InputError, match="by the paper tracker.* paper is this bundle's own tracker: name the other"):
        RunOptions(new_object_score=1.0).resolve(describe(model=ModelConfig(("cat",), tracking=PAPER)), is_live=False)


def test_a_threshold_below_the_exported_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"--candidate-threshold 0\.01"):
        RunOptions(score_threshold=0.01).resolve(describe(), is_live=False)
    assert RunOptions(score_threshold=0.01).resolve(describe(candidate_threshold=0.01), is_live=False)
    with pytest.raises(InputError, match=r"threshold 0\.2 of this bundle; take 0\.2 or more, or export again"):
        RunOptions(score_threshold=0.05).resolve(describe(candidate_threshold=0.2), is_live=False)


@pytest.mark.parametrize(("exported", "decided"), [(0.01, 0.05), (0.05, 0.05), (0.2, 0.2)])
def test_the_threshold_of_a_run_that_does_not_say(exported: float, decided: float) -> None:
    assert RunOptions().resolve(describe(candidate_threshold=exported), is_live=False).score_threshold == decided


def test_whole_numbers_may_be_written_as_others() -> None:
    options = RunOptions(top_k=200.0, max_age_shown=np.float32(4))  # type: ignore[arg-type]
    assert (options.top_k, options.max_age_shown) == (200, 4)
    assert isinstance(options.top_k, int) and isinstance(options.max_age_shown, int)


def test_numbers_of_numpy_can_be_written() -> None:
    given = {"score_threshold": np.float32(0.5), "nms_iou": np.float32(0.25), "top_k": np.int64(7),
             "max_age_shown": np.float64(3), "score_decay": np.float16(0.5)}
    written = json.loads(json.dumps(RunOptions(**given).resolve(describe(), is_live=False).to_dict()))
    assert {name: written[name] for name in given} == {"score_threshold": 0.5, "nms_iou": 0.25, "top_k": 7,
                                                       "max_age_shown": 3, "score_decay": 0.5}
