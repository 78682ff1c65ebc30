from __future__ import annotations

from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from media import SIZE, picture, pictures, write_coded, write_heic, write_video

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


def write_streams(path: Path, *dispositions: av.stream.Disposition) -> Path:
    """A file with a video stream for each disposition; the streams differ in width, 64, 96, ..."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in dispositions]
        for number, (stream, disposition) in enumerate(zip(streams, dispositions, strict=True)):
            stream.height, stream.width, stream.pix_fmt = 48, 64 + 32 * number, "yuv420p"
            stream.disposition = disposition
        for stream in streams:
            for index in range(3):
                frame = av.VideoFrame.from_ndarray(picture(index, (48, stream.width)), format="bgr24")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


NONE, DEFAULT, COVER, DEPENDENT = (av.stream.Disposition(value) for value in (0, 1, 1024, 524288))


@pytest.mark.parametrize(("dispositions", "width"), [
    ((NONE, NONE), 64), ((NONE, DEFAULT), 96), ((DEFAULT, DEFAULT), 64), ((NONE, NONE, DEFAULT), 128),
])
def test_the_default_stream_is_read(tmp_path: Path, dispositions: tuple[av.stream.Disposition, ...], width: int
                                    ) -> None:
    with VideoSource(write_streams(tmp_path / "v.mkv", *dispositions)) as source:
        assert (source.width, len(list(source))) == (width, 3)


@pytest.mark.parametrize(("dispositions", "chosen"), [
    ((DEPENDENT, NONE), 1), ((DEPENDENT | DEFAULT, NONE), 1), ((NONE, DEPENDENT | DEFAULT), 0),
    ((COVER, NONE), 1), ((COVER | DEFAULT, NONE), 1), ((COVER, NONE, DEFAULT), 2),
])
def test_covers_and_layers_on_other_streams_are_not_read(dispositions: tuple[av.stream.Disposition, ...], chosen: int
                                                         ) -> None:
    streams = [SimpleNamespace(disposition=disposition, codec_context=SimpleNamespace(width=1, height=1))
               for disposition in dispositions]  # no container that PyAV writes keeps these marks
    container = SimpleNamespace(streams=SimpleNamespace(video=streams), metadata={"major_brand": "isom"})
    assert video_stream.find_video_stream(container, "v.mp4") is streams[chosen]


def test_a_picture_in_tiles_is_refused(tmp_path: Path) -> None:
    whole = picture(size=(SIZE[0] * 4, SIZE[1] * 4))
    with VideoSource(write_heic(tmp_path / "one.heic", whole, tiles=1)) as source:
        assert (source.height, source.width) == whole.shape[:2]
        [frame] = source
        assert np.abs(frame.image.astype(int) - whole).mean() < 8
    path = write_heic(tmp_path / "tiles.heic", whole, tiles=2)
    for brand in (b"heic", b"heix", b"hevc", b"avis", b"MiHE"):
        path.write_bytes(path.read_bytes().replace(path.read_bytes()[8:12], brand, 1))
        with pytest.raises(InputError, match="tiles.heic is a picture made of tiles.*convert it, for instance to JPEG"):
            VideoSource(path)


@pytest.mark.parametrize(("major", "compatible", "is_refused"), [
    ("isom", "isomavc1", False), ("heic", "", True), ("xxxx", "heixmif1", True), ("xxxx", "isommsf1", True),
    ("xxx", "avif", True), ("isom", "xmifxmif1x", False),
])
@pytest.mark.parametrize("first", [NONE, DEPENDENT])
def test_what_depends_on_another_stream_is_a_tile_in_a_picture_or_alone(
        major: str, compatible: str, is_refused: bool, first: av.stream.Disposition) -> None:
    is_refused = is_refused or first == DEPENDENT
    streams = [SimpleNamespace(disposition=disposition, codec_context=SimpleNamespace(width=1, height=1))
               for disposition in (first, DEPENDENT)]
    container = SimpleNamespace(streams=SimpleNamespace(video=streams),
                                metadata={"major_brand": major, "compatible_brands": compatible})
    with pytest.raises(InputError, match="tiles") if is_refused else nullcontext():
        assert video_stream.find_video_stream(container, "v") is streams[0]
