"""Writing all files of one run, frame by frame."""
from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2

from stmask_deploy.atomic import atomic_file, cannot_write
from stmask_deploy.errors import OutputError, StmaskError
from stmask_deploy.wording import counted

from .drawing import draw_result
from .frame_source import Damage, FrameSource, Image
from .model import Model
from .output_folder import OutputFolder
from .results_jsonl import ResultsHeader, ResultsWriter, frame_line
from .tracking import TrackedFrame
from .video_writer import VideoWriter
from .ytvis import MAX_ITEMS, write_result_list

_LOGGER = logging.getLogger(__name__)


class RunWriter:
    """Context manager over the writers of a run. `finish` writes results.json and gives the video its final name.

    Args:
        model: already reset for the source.
        source: the source of the frames.
        output: a folder without earlier results, see `OutputFolder.claimed`.
        draw: write an annotated video or picture.
        draw_threshold: instances with a lower score are not drawn.

    Attributes:
        num_frames: number of frames written so far.
    """

    def __init__(self, model: Model, source: FrameSource, output: OutputFolder, draw: bool,
                 draw_threshold: float) -> None:
        self.num_frames = 0
        self._model = model
        self._source = source
        self._output = output
        self._draw = draw
        self._draw_threshold = draw_threshold
        self._rows: Counter[int] = Counter()  # identity -> number of frames in which it is shown

    def __enter__(self) -> RunWriter:
        with ExitStack() as stack:
            self._results = stack.enter_context(ResultsWriter(self._output.results, self._header()))
            self._video: VideoWriter | None = None
            if self._draw and self._source.kind != "image":
                self._video = stack.enter_context(
                    VideoWriter(self._output.unfinished_video, self._source.fps, self._source.pixel_aspect))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if isinstance(error, StmaskError) and self.num_frames:
            error.add_note(f"{counted(self.num_frames, 'frame')} before that in {self._output.results}")
        self._stack.__exit__(kind, error, trace)

    def _header(self) -> ResultsHeader:
        description = self._model.description
        bundle = {"export_id": description.export_id, "variant": description.model.variant,
                  "checkpoint": description.checkpoint_name, "checkpoint_sha256": description.checkpoint_sha256,
                  "device": self._model.device}
        source = self._source
        return ResultsHeader(source.name, source.width, source.height, source.fps, bundle,
                             self._model.options.to_dict())

    @property
    def num_identities(self) -> int:
        """Number of distinct identities shown so far."""
        return len(self._rows)

    def write(self, tracked: TrackedFrame) -> None:
        """Write one frame.

        Raises:
            OutputError: a file cannot be written.
            StmaskError: a score or box is not a finite number.
        """
        result, stage = tracked.result, tracked.times.stage
        line = tracked.line
        if line is None:
            with stage("masks"):
                result.segmentations  # noqa: B018  computed here, so that their time is measured separately
            with stage("encode"):
                line = frame_line(result)
        with stage("encode"):
            self._results.write(line)
        self._rows.update(result.ids.tolist())
        self.num_frames += 1
        if self._draw:
            with stage("draw"):
                image = draw_result(tracked.frame.image, result.select(result.scores >= self._draw_threshold),
                                    self._model.options.detect_every)
            with stage("encode"):
                self._write_image(image, tracked.frame.time_s)

    def _write_image(self, image: Image, time_s: float) -> None:
        if self._video is not None:
            self._video.write(image, time_s)
            return
        path = self._output.picture
        is_encoded, data = cv2.imencode(path.suffix, image)
        if not is_encoded:
            raise OutputError(f"{path} cannot be encoded; leave it out with --no-video")
        with atomic_file(path) as file:
            file.write(data.tobytes())

    def finish(self, damage: Damage, is_interrupted: bool) -> tuple[Path, ...]:
        """Complete all files.

        Args:
            damage: damage of the source up to the last frame written.
            is_interrupted: whether the user stopped the run.

        Returns:
            The files that exist.

        Raises:
            OutputError: a file cannot be completed.
        """
        self._results.finish(damage, interrupted=is_interrupted)
        if self._video is not None:
            self._video.close()
            self._rename_video()
        if not self._source.is_live:  # the list has an item for every frame of every identity, so it would never end
            self._write_sequences(damage.frames + damage.unreadable_files)
        return self._output.existing()

    def _write_sequences(self, num_frames: int) -> None:
        if self.num_identities * num_frames > MAX_ITEMS:
            _LOGGER.warning("%s: %d identities in %d frames are too many for results.json, which has an item for each "
                            "frame of each; results.jsonl holds everything", self._source.name, self.num_identities,
                            num_frames)
            return
        write_result_list(self._output.sequences, self._results.frames, self._rows, num_frames)

    def _rename_video(self) -> None:
        if not self._output.unfinished_video.exists():
            return  # no frame was written
        try:
            self._output.unfinished_video.replace(self._output.video)
        except OSError as error:
            raise cannot_write(self._output.video, error) from error
