from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from media import picture

from stmask_deploy.errors import InputError
from stmask_deploy.runtime.frame_source import Damage, Frame, FrameSource


class ThreePictures(FrameSource):
    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self.name, self.fps, self.num_frames = "three", None, None
        self.height, self.width = 48, 64
        self.is_released = False

    def _frames(self) -> Iterator[Frame]:
        for index in range(3):
            yield Frame(index, 0.0, picture(index))

    def _release(self) -> None:
        self.is_released = True


def test_counts_what_it_delivers_and_closes() -> None:
    with ThreePictures() as source:
        assert [frame.index for frame in source] == [0, 1, 2]
    assert source.damage == Damage(frames=3)
    assert source.is_released
    assert not source.is_live


def test_counts_only_what_was_taken() -> None:
    source = ThreePictures()
    next(iter(source))
    assert source.damage.frames == 1


def test_is_read_once() -> None:
    source = ThreePictures()
    list(source)
    with pytest.raises(InputError, match="open it again"):
        list(source)


class HeldPictures(ThreePictures):
    """The second one takes until `end` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reading, self.end = threading.Event(), threading.Event()

    def _frames(self) -> Iterator[Frame]:
        for frame in super()._frames():
            if frame.index == 1:
                self.is_reading.set()
                assert self.end.wait(10)
            yield frame


def test_is_not_closed_while_a_thread_reads_it() -> None:
    """As one that Ctrl-C left behind: libraries that are freed while they work end the process."""
    source, read = HeldPictures(), list[int]()
    reader = threading.Thread(target=lambda: read.extend(frame.index for frame in source))
    with source:
        reader.start()
        assert source.is_reading.wait(10)
    assert not source.is_released
    source.end.set()
    reader.join(10)
    assert read == [0, 1]  # what was in hand, and nothing more
    assert source.is_released  # by the thread


def test_closing_leaves_what_a_thread_reads_to_it() -> None:
    source, read = HeldPictures(), list[int]()
    reader = threading.Thread(target=lambda: read.extend(frame.index for frame in source))
    reader.start()
    assert source.is_reading.wait(10)
    source.close()
    assert not source.is_released
    source.end.set()
    reader.join(10)
    assert read == [0, 1] and source.is_released


def test_a_closed_source_is_not_read() -> None:
    with ThreePictures() as source:
        pass
    assert source.is_released
    for read in (source.check_unread, lambda: next(iter(source))):
        with pytest.raises(InputError, match="three is closed; open it again, and read it before it is closed"):
            read()


def test_is_closed_between_two_frames() -> None:
    with ThreePictures() as source:
        frames = iter(source)
        assert next(frames).index == 0
    assert source.is_released
    assert list(frames) == []


@pytest.mark.parametrize(("damage", "is_damaged", "text"), [
    (Damage(), False, "0 frames read"),
    (Damage(frames=1), False, "1 frame read"),
    (Damage(frames=285, packet_errors=6), True, "285 frames read, 6 packet errors"),
    (Damage(2, 1, 1, 1, 1, 1), True, "2 frames read, 1 packet error, 1 corrupt frame, 1 missing frame, "
                                     "1 unreadable file, 1 lost connection"),
    (Damage(2, lost_connections=2), True, "2 frames read, 2 lost connections"),
    (Damage(2, skipped_frames=9), False, "2 frames read"),
    (Damage(2, unreadable_files=2, unreadable_names=("1.png", "3.png")), True,
     "2 frames read, 2 unreadable files (1.png, 3.png)"),
    (Damage(2, unreadable_files=9, unreadable_names=("1", "2", "3")), True,
     "2 frames read, 9 unreadable files (1, 2, 3, ...)"),
])
def test_damage_in_words(damage: Damage, is_damaged: bool, text: str) -> None:
    assert damage.is_damaged is is_damaged
    assert str(damage) == text


def test_damage_as_json() -> None:
    assert Damage(5, 4, 3, 2, 1, 7, 6, ("1.png",)).to_dict() == {
        "frames": 5, "packet_errors": 4, "corrupt_frames": 3, "missing_frames": 2, "unreadable_files": 1,
        "lost_connections": 7, "skipped_frames": 6}
