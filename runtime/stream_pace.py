"""The pace of a stream that arrives in pieces of several seconds, as HLS does."""
from __future__ import annotations

MAX_STEP_S = 5.0  # time stamps that are further from the clock start anew; longer than a piece takes to arrive


class Pace:
    """Tells when a picture is due, so that pictures are apart as they were taken, not as they arrive.

    A picture that comes late is due at once, as are the following ones until they have caught up. Time stamps that
    jump, and pictures later than `MAX_STEP_S`, start anew: whatever came before, they are due when they come.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None  # from time stamps to the clock

    def wait_s(self, time_s: float, now_s: float) -> float:
        """Seconds from now until a picture is due, from 0 to `MAX_STEP_S`.

        Args:
            time_s: its time stamp.
            now_s: on the monotonic clock.
        """
        if self._offset_s is None or abs(time_s + self._offset_s - now_s) > MAX_STEP_S:
            self._offset_s = now_s - time_s
        return max(0.0, time_s + self._offset_s - now_s)
