"""The pace of a stream that arrives in pieces of several seconds, as HLS does."""
from __future__ import annotations

import math

MAX_STEP_S = 5.0  # time stamps that are further from the clock start anew; longer than a piece takes to arrive


class Pace:
    """Tells when a picture is due, so that pictures are apart as they were taken, not as they arrive.

    A picture that comes late is due at once, as are the following ones until they have caught up. Time stamps that
    jump or go back, and pictures that are late for `MAX_STEP_S`, start anew: they are due when they come.
    """

    def __init__(self) -> None:
        self._offset_s = -math.inf  # from time stamps to the clock; the first picture starts anew
        self._latest_s = -math.inf  # time stamp
        self._on_time_s = -math.inf  # when a picture was last not late, or started anew

    def wait_s(self, time_s: float, now_s: float) -> float:
        """Seconds from now until a picture is due, from 0 to `MAX_STEP_S`.

        Args:
            time_s: its time stamp.
            now_s: on the monotonic clock.
        """
        wait_s = time_s + self._offset_s - now_s
        is_late_for_long = wait_s < 0 and now_s - self._on_time_s > MAX_STEP_S
        if abs(wait_s) > MAX_STEP_S or is_late_for_long or time_s < self._latest_s:
            self._offset_s, wait_s = now_s - time_s, 0.0
        self._latest_s = time_s
        if wait_s >= 0:
            self._on_time_s = now_s
        return max(0.0, wait_s)
