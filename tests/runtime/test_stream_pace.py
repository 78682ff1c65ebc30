"""Clocks of a stream in pieces: what arrives at once is due one by one."""
from __future__ import annotations

import itertools

import pytest

from stmask_deploy.runtime.stream_pace import MAX_STEP_S, Pace


def due(pictures: list[tuple[float, float]]) -> list[float]:
    """When pictures are given, which are (time stamp, arrival), by one who waits for each before taking the next."""
    pace, now_s, given = Pace(), 0.0, []
    for time_s, arrival_s in pictures:
        now_s = max(now_s, arrival_s)
        now_s += pace.wait_s(time_s, now_s)
        given.append(now_s)
    return given


@pytest.mark.parametrize("first", [0.0, -3.0, 95_000.0])
def test_pieces_are_spread_over_their_time(first: float) -> None:
    pictures = [(first + 0.25 * index, 2.0 * (index // 8)) for index in range(32)]  # eight at once, every two seconds
    assert due(pictures) == pytest.approx([0.25 * index for index in range(32)])


def test_a_late_piece_catches_up() -> None:
    pictures = [(0, 0), (1, 0), (2, 3.5), (3, 3.5), (4, 3.5), (5, 3.5)]
    assert due(pictures) == pytest.approx([0, 1, 3.5, 3.5, 4, 5])


def test_a_piece_that_is_too_late_starts_anew() -> None:
    late = 1 + MAX_STEP_S + 1.5
    assert due([(0, 0), (1, 0), (2, late), (3, late)]) == pytest.approx([0, 1, late, late + 1])


@pytest.mark.parametrize("jump", [100.0, -100.0, MAX_STEP_S + 1.5])
def test_time_stamps_that_jump_start_anew(jump: float) -> None:
    assert due([(0, 0), (1, 0), (1 + jump, 0), (2 + jump, 0)]) == pytest.approx([0, 1, 1, 2])


def test_pieces_that_stay_late_start_anew() -> None:
    """As after a pause of the camera: they would come all at once for ever."""
    pictures = [(0.5 * index, 2 * (index // 4) + (4 if index >= 8 else 0)) for index in range(80)]  # pieces of 2 s
    given = due(pictures)
    assert given[:8] == pytest.approx([0.5 * index for index in range(8)])
    assert [later - earlier for earlier, later in itertools.pairwise(given[24:])] == pytest.approx([0.5] * 55)


def test_pieces_whose_time_stamps_start_anew() -> None:
    pictures = [(0.5 * (index % 4), 0.0) for index in range(12)]  # three pieces from 0 to 1.5 s
    assert due(pictures) == pytest.approx([0, 0.5, 1, 1.5, 1.5, 2, 2.5, 3, 3, 3.5, 4, 4.5])


def test_a_gap_of_a_lost_piece_is_waited_for() -> None:
    assert due([(0, 0), (4, 0)]) == pytest.approx([0, 4])
