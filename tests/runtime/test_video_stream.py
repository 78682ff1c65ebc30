from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import pictures, write_coded, write_video

from stmask_deploy.errors import InputError
from stmask_deploy.runtime import video_stream
from stmask_deploy.runtime.video_source import VideoSource


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        VideoSource(path)


def test_gigantic_frames_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_stream, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="announces frames of 64x48"):
        VideoSource(write_video(tmp_path / "v.mp4", pictures(3)))


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_a_codec_that_is_not_known(tmp_path: Path, suffix: str) -> None:
    data = write_video(tmp_path / f"whole.{suffix}", pictures(3)).read_bytes()
    for name, other in ((b"V_MPEG4/ISO/AVC", b"V_MPEG4/XSO/XXC"), (b"H264", b"ZQZX"), (b"h264", b"zqzx")):
        data = data.replace(name, other)
    path = tmp_path / f"odd.{suffix}"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"odd.{suffix}: its video codec is not known here; convert it"):
        VideoSource(path)


@pytest.mark.parametrize(("rate", "fps"), [(30, 30.0), (1000, 1000.0), (1001, None), (Fraction(1, 2), 0.5)])
def test_an_implausible_rate_is_none(tmp_path: Path, rate: int | Fraction, fps: float | None) -> None:
    with VideoSource(write_coded(tmp_path / "v.nut", range(4), "mpeg4", rate)) as source:
        assert source.fps == fps
