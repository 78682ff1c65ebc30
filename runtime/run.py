"""A whole run: track a source with a model and write the result files."""
from __future__ import annotations

import time
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from stmask_deploy.errors import InputError

from .encoder_process import EncoderProcess
from .frame_source import Damage, FrameSource
from .interrupt import InterruptFlag
from .model import Model
from .output_folder import OutputFolder
from .progress import Progress
from .run_writer import RunWriter
from .tracking import check_run, is_overlapped
from .video_writer import check_size

DRAW_THRESHOLD = 0.3  # lowest score that is drawn; the results contain everything above the score threshold


@dataclass(frozen=True)
class RunSummary:
    """Summary of a run."""

    frames: int
    seconds: float  # from after the output folder was prepared until the last file was complete
    identities: int
    files: tuple[Path, ...]
    damage: Damage  # of the source
    lost_candidates: int  # see `Model.lost_candidates`
    is_interrupted: bool  # by Ctrl-C, a signal or closing the source; the files contain everything up to that point

    @property
    def fps(self) -> float:
        """Frames per second over all stages."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def run_video(model: Model, source: FrameSource, folder: str | Path, *, draw: bool = True,
              draw_threshold: float = DRAW_THRESHOLD, max_frames: int | None = None, overwrite: bool = False,
              show_progress: bool = False, mode: str = "auto", interrupt: InterruptFlag | None = None,
              encoder_process: EncoderProcess | None = None) -> RunSummary:
    """Run a source and write results.jsonl, results.json (not for live sources) and an annotated video or picture.

    The calling thread writes the files; in mode throughput, other threads process the next frames meanwhile.

    Args:
        model: opened bundle; it is reset first.
        source: read to its end, but not closed.
        folder: where to write; created if missing.
        draw: write the annotated video or picture.
        draw_threshold: instances with a lower score are in the results, but not drawn.
        max_frames: stop after this many frames.
        overwrite: replace the results of an earlier run.
        show_progress: draw a progress line if standard error is a terminal.
        mode: see `Model.track`; the files are the same.
        interrupt: ends the run after the current frame once it is set; by default Ctrl-C, SIGTERM and SIGHUP do.
        encoder_process: used where it helps; by default one is started if it helps.

    Raises:
        InputError: the source turns out to be unreadable or would be replaced, `mode` is unknown, `max_frames` is
            not a positive whole number, or `draw_threshold` not in [0, 1].
        OutputError: `folder` already holds results and `overwrite` is False, or something cannot be written.
    """
    check_run(mode, max_frames)
    if not 0 <= draw_threshold <= 1:
        raise InputError(f"draw_threshold must be a number from 0 to 1, got {draw_threshold}")
    source.check_unread()
    if draw and source.kind != "image":
        check_size(source.height, source.width)
    output = OutputFolder(Path(folder))
    # Drawing needs the masks in this process anyway.
    is_helped = not draw and model.leaves_cores and is_overlapped(mode, source)
    with ExitStack() as stack:
        stack.enter_context(output.claimed(overwrite, source.files))
        start = time.perf_counter()
        model.reset(source.is_live)  # resolves the options that the header of the results contains
        total = min((count for count in (source.num_frames, max_frames) if count is not None), default=None)
        if interrupt is None:
            interrupt = stack.enter_context(InterruptFlag())
        source.stop_when(lambda: interrupt.is_set)
        writer = stack.enter_context(RunWriter(model, source, output, draw, draw_threshold))
        tracked_frames = model.track_frames(source, max_frames=max_frames, mode=mode)
        if is_helped:
            tracked_frames = (encoder_process or stack.enter_context(EncoderProcess())).ahead(tracked_frames)
        with Progress(total) if show_progress else nullcontext() as progress, closing(tracked_frames) as frames:
            for tracked in frames:
                writer.write(tracked)
                if progress is not None:
                    progress.advance(f"{len(tracked.result)} objects")
                if interrupt.is_set:
                    is_interrupted = True
                    # Frames may have been read and detected beyond the last one written.
                    damage, lost_candidates = tracked.damage, tracked.lost_candidates
                    break
            else:  # Ctrl-C no longer matters: all frames are done, unless it ended a wait for the next one
                is_interrupted = source.is_closed or (interrupt.is_set and source.is_live)
                damage, lost_candidates = source.damage, model.lost_candidates
        files = writer.finish(damage, is_interrupted)
        seconds = time.perf_counter() - start  # excludes waiting for the encoder process to exit
    return RunSummary(writer.num_frames, seconds, writer.num_identities, files, damage, lost_candidates, is_interrupted)
