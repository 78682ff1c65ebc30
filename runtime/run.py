"""A whole run: a source through a model into files."""
from __future__ import annotations

import time
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from .frame_source import Damage, FrameSource
from .interrupt import InterruptFlag
from .mask_process import MaskProcess
from .model import Model
from .output_folder import OutputFolder
from .progress import Progress
from .run_writer import RunWriter
from .tracking import check_run, is_overlapped

DRAW_THRESHOLD = 0.3  # what is worth looking at; the results keep everything above the score threshold


@dataclass(frozen=True)
class RunSummary:
    """What a run did."""

    frames: int
    seconds: float  # from the first frame to the last file
    identities: int
    files: tuple[Path, ...]
    damage: Damage  # of the source
    lost_candidates: int  # see `Model.lost_candidates`
    is_interrupted: bool  # stopped by Ctrl-C; the files hold everything up to there

    @property
    def fps(self) -> float:
        """Frames a second, everything included."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def run_video(model: Model, source: FrameSource, folder: Path, *, draw: bool = True,
              draw_threshold: float = DRAW_THRESHOLD, max_frames: int | None = None, overwrite: bool = False,
              show_progress: bool = False, mode: str = "auto", interrupt: InterruptFlag | None = None,
              mask_process: MaskProcess | None = None) -> RunSummary:
    """Run a source and write results.jsonl, results.json and an annotated video (or picture) into `folder`.

    The files are written in the thread of the caller, in mode throughput while others work on the frames that follow.

    Args:
        model: opened bundle; it is reset first.
        source: is read to its end, not closed.
        folder: is made where missing.
        draw: write the annotated video.
        draw_threshold: instances with a lower score are in the results, but not drawn.
        max_frames: stop after that many.
        overwrite: replace the results of an earlier run.
        show_progress: draw a progress line, where standard error is a terminal.
        mode: see `Model.track`; the files are the same.
        interrupt: ends the run after the frame in hand once it is set; by default Ctrl-C does.
        mask_process: is used where it helps; by default one is started where it does.

    Raises:
        InputError: the source turns out to be unreadable or would be replaced, `mode` is not known,
            or `max_frames` is no positive whole number.
        OutputError: `folder` holds results already, or something cannot be written.
    """
    check_run(mode, max_frames)
    output = OutputFolder(folder)
    output.prepare(overwrite, source.files)
    start = time.perf_counter()
    model.reset(source.is_live)  # decides the options that the results' header tells
    total = min((count for count in (source.num_frames, max_frames) if count is not None), default=None)
    # Where it is drawn, the masks are needed here too.
    is_helped = not draw and model.leaves_cores and is_overlapped(mode, source)
    with ExitStack() as stack:
        if interrupt is None:
            interrupt = stack.enter_context(InterruptFlag())
        writer = stack.enter_context(RunWriter(model, source, output, draw, draw_threshold))
        tracked_frames = model.track_frames(source, max_frames=max_frames, mode=mode)
        if is_helped:
            tracked_frames = (mask_process or stack.enter_context(MaskProcess())).ahead(tracked_frames)
        with Progress(total) if show_progress else nullcontext() as progress, closing(tracked_frames) as frames:
            for tracked in frames:
                writer.write(tracked.frame, tracked.result)
                if progress is not None:
                    progress.advance(f"{len(tracked.result)} objects")
                if interrupt.is_set:
                    is_interrupted = True
                    damage = tracked.damage  # the source may have been read further than what is written
                    break
            else:  # Ctrl-C from here on changes nothing: everything is done
                is_interrupted, damage = False, source.damage
        files = writer.finish(damage, is_interrupted)
        seconds = time.perf_counter() - start  # that a process for masks ends is no part of it
    return RunSummary(writer.num_frames, seconds, writer.num_identities, files, damage, model.lost_candidates,
                      is_interrupted)
