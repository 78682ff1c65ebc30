"""`stmask-run`: a video in, masks with identities out."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stmask_deploy import __version__
from stmask_deploy.console import Command, ignore_interrupts, leave_workers
from stmask_deploy.errors import EXIT_DAMAGED_INPUT, EXIT_INTERRUPTED, InputError, StmaskError
from stmask_deploy.option_types import FloatRange, NamedPath
from stmask_deploy.teller import Teller
from stmask_deploy.tracking_config import TRACKERS
from stmask_deploy.wording import on_one_line

from .messages import tell_failure, tell_limits, tell_problems, tell_setup, tell_summary, told_warnings

if TYPE_CHECKING:
    from .frame_source import FrameSource
    from .interrupt import InterruptFlag
    from .model import Model
    from .run import RunSummary

_EPILOG = """\b
Examples:
  stmask-run clip.mp4 -m model_stmask
  stmask-run frames/ -m model_stmask -o out --backend openvino --precision bf16
  stmask-run monday.mp4 tuesday.mp4 -m model_stmask -o out
  stmask-run 0 -m model_stmask --max-frames 300
  stmask-run rtsp://camera.local/stream -m model_stmask -o out
  stmask-run clip.mp4 -m model_stmask --no-temporal --nms per-class --no-video

\b
Exit codes: 0 done; 1 the run failed; 2 bad input or usage; 3 finished, but the input was damaged; 4 output could not
be written; 5 backend or device; 130 interrupted, the results so far are complete. Of several sources the first failure
counts.
"""


@click.command(cls=Command, epilog=_EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-m", "--model", "bundle", type=NamedPath(), metavar="BUNDLE",
              help="Folder written by stmask-export.  [default: the demo model, which knows six kinds of shapes]")
@click.option("-o", "--output", type=NamedPath(), metavar="DIR",
              help="Folder for the results; with several sources, each gets a subfolder.  "
                   "[default: runs/NAME_OF_SOURCE]")
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option("--backend", type=click.Choice(["onnxruntime", "openvino"]), default="onnxruntime",
              help="Library that executes the graphs.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "cuda-graph", "tensorrt", "gpu"]), default="auto",
              help="cuda, cuda-graph (launches recorded once and replayed), tensorrt: NVIDIA GPU (onnxruntime); gpu: "
                   "Intel GPU (openvino); auto: the fastest that works without preparation.")
@click.option("--precision", type=click.Choice(["f32", "bf16", "f16", "int8"]), default="f32",
              help="Precision of the arithmetic. bf16: openvino only; int8, and f16 with onnxruntime: only if exported "
                   "(stmask-export --int8, --half).")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: the backend's choice]")
@click.option("--cache", type=NamedPath(), metavar="DIR",
              help="Keep what openvino and tensorrt compile in DIR, for faster starts.  [default: nothing is kept]")
@click.option("--tracker", type=click.Choice(list(TRACKERS)),
              help="released: as the released code; paper: equations 15-17; frame: without temporal fusion.  "
                   "[default: the bundle's own, usually released; frame without a temporal graph]")
@click.option("--no-temporal", is_flag=True, help="The same as --tracker frame.")
@click.option("--alpha", type=float,
              help="Paper tracker: weight of the embeddings' cosine.  [default: the bundle's, or 1.0]")
@click.option("--beta", type=float,
              help="Paper tracker: weight of the mask IoU.  [default: the bundle's, or 1.0]")
@click.option("--epsilon", type=float,
              help="Paper tracker: score that a match with a known object has to exceed.  "
                   "[default: the bundle's, or 0.7]")
@click.option("--embedding-momentum", type=float,
              help="Paper tracker: share of an object's embedding that a detection keeps, times 1 - score; 0 replaces "
                   "it.  [default: the bundle's, or 0]")
@click.option("--max-cover", type=float,
              help="Paper tracker: share of a new object's mask that one better detection may cover.  "
                   "[default: the bundle's, or 1]")
@click.option("--new-object-score", type=float,
              help="Released and frame tracker: score that a match with a known object has to exceed.  "
                   "[default: the bundle's, or 1.4]")
@click.option("--detect-every", type=int, default=1, metavar="K",
              help="Detect on every K-th frame only, the key frames; in between the temporal graph moves the objects.")
@click.option("--score-decay", type=float,
              help="Released and paper tracker: factor on the score for each key frame without detection.  "
                   "[default: 0.95]")
@click.option("--max-age", "max_age_shown", type=int,
              help="Released and paper tracker: key frames an object is shown without being detected.  [default: 10]")
@click.option("--conf", "score_threshold", type=float,
              help="Class probability that candidates and score that results have to exceed; objects may be tracked "
                   "differently (--draw-conf only draws fewer).  [default: 0.05, or the bundle's candidate threshold "
                   "if that is higher]")
@click.option("--nms", type=click.Choice(["cross-class", "per-class"]), default="cross-class",
              help="Suppression over all classes at once, or within each class.")
@click.option("--nms-iou", type=float, default=0.5,
              help="IoU above which the lower-scoring of two detections is suppressed.")
@click.option("--top-k", type=int, default=200, help="Candidates that enter suppression, best first.")
@click.option("--max-detections", type=int, default=100, help="Detections that leave per-class suppression.")
@click.option("--memory", type=click.Choice(["exact", "bounded"]),
              help="exact: no object is ever forgotten, as in the released code; bounded: time and memory per frame "
                   "stay constant.  [default: bounded for live sources and with --retire-after, exact otherwise]")
@click.option("--retire-after", type=int, metavar="FRAMES",
              help="Bounded memory: forget objects not detected in more than this many key frames, at least "
                   "--max-age.  [default: 30, or --max-age if that is larger]")
@click.option("--no-video", is_flag=True, help="Do not write the annotated video.")
@click.option("--draw-conf", type=FloatRange(0, 1), default=0.3,
              help="Minimum score of drawn objects; the results hold the others too.")
@click.option("--max-frames", type=click.IntRange(min=1), help="Stop after that many frames.")
@click.option("--mode", type=click.Choice(["auto", "latency", "throughput"]), default="auto",
              help="throughput: several frames in flight; latency: each frame is finished before the next is read; "
                   "same results. auto: throughput for video files and folders, latency otherwise.")
@click.option("--parallel", type=click.IntRange(min=1), default=1, metavar="N",
              help="Number of sources that run at the same time.")
@click.option("--image-fps", type=float, default=30.0,
              help="Frame rate of a folder of images, from 0.001 to 1000.")
@click.version_option(__version__, prog_name="stmask-run")
@click.pass_context
def main(ctx: click.Context, /, sources: Sequence[str], bundle: Path | None, output: Path | None, overwrite: bool,
         backend: str, device: str, precision: str, threads: int | None, cache: Path | None, no_video: bool,
         draw_conf: float, max_frames: int | None, mode: str, parallel: int, image_fps: float,
         **options: Any) -> None:
    """Find, segment and track the objects of SOURCE with an exported model.

    SOURCE is a video file, a folder of images, a single image, a camera number (unless a file has that name), or the
    address of a network stream (rtsp, rtmp and http, also encrypted; udp, rtp, tcp).
    Writes results.jsonl (one line per frame, readable during the run), results.json (YouTube-VIS result list; not for
    live sources) and an annotated video.mp4 (frame.png for a single image). Several sources share one model and run one
    after another, or --parallel at a time; a source that fails does not stop the others.
    """
    from .folder_names import folder_name
    from .model import load
    from .run import run_video
    from .sources import files_of

    ctx.with_resource(told_warnings())
    _apply_no_temporal(options)
    if parallel > len(sources):
        raise InputError(f"--parallel {parallel} needs at least {parallel} sources, given: {len(sources)}")
    open_model = partial(load, bundle, backend, device, precision, threads, cache=cache, **options)
    opened = partial(_opened, inputs=[path for source in sources for path in files_of(source)], image_fps=image_fps,
                     overwrite=overwrite)
    run = partial(run_video, draw=not no_video, draw_threshold=draw_conf, max_frames=max_frames, overwrite=overwrite,
                  mode=mode, show_progress=parallel == 1)
    tell = Teller()
    if len(sources) > 1:
        _check_endless(sources, parallel, max_frames)
        _exit(ctx, _run_several(ctx, sources, parallel, open_model(), output or Path("runs"), opened, run, tell), tell)
    with opened(sources[0], output or Path("runs") / folder_name(sources[0])) as (source, folder):
        model = open_model()  # last, because it may take a while
        model.reset(source.is_live)
        tell(tell_setup, model, source.is_live)
        summary = run(model, source, folder)
    tell(tell_summary, summary)
    tell(tell_problems, summary)
    _exit(ctx, _exit_code(summary), tell)


@contextmanager
def _opened(name: str, folder: Path, *, inputs: Sequence[Path], image_fps: float, overwrite: bool,
            is_stopped: Callable[[], bool] | None = None) -> Iterator[tuple[FrameSource, Path]]:
    """The opened source and its result folder, checked to be usable and to overwrite none of `inputs`."""
    from .output_folder import OutputFolder
    from .sources import open_source

    with open_source(name, image_fps=image_fps, is_stopped=is_stopped) as source:
        OutputFolder(folder).check(overwrite, inputs)
        yield source, folder


def _run_several(ctx: click.Context, sources: Sequence[str], parallel: int, model: Model, output: Path,
                 opened: Callable[..., AbstractContextManager[tuple[FrameSource, Path]]],
                 run: Callable[..., RunSummary], tell: Teller) -> int:
    """Run several sources on one model, continuing after failures.

    Returns:
        The exit code: that of an interrupt if there was one, else of the first source that failed, else the highest.
    """
    from .folder_names import folder_names
    from .several import Job, run_several
    from .sources import shown_name

    folders = iter(folder_names(sources))

    def prepare(name: str, interrupt: InterruptFlag) -> Job:
        with ExitStack() as stack:
            is_stopped = partial(getattr, interrupt, "is_set")
            source, folder = stack.enter_context(opened(name, output / next(folders), is_stopped=is_stopped))
            fork = model.fork()
            if source.is_live:
                fork.reset(is_live=True)
                tell(tell_limits, fork, is_live=True, of=f"{shown_name(name)}: ")
            kept = stack.pop_all()  # from here on the job closes it

        def job(interrupt: InterruptFlag) -> RunSummary:
            with kept:
                return run(fork, source, folder, interrupt=interrupt)

        return job

    tell(tell_setup, model, is_live=False)
    failures: dict[int, int] = {}  # position of the source -> exit code
    codes: set[int] = set()
    num_ended = 0
    with closing(run_several(sources, prepare, parallel)) as outcomes:
        for outcome in outcomes:
            num_ended += 1
            result = outcome.result
            if isinstance(result, BaseException):
                failures[outcome.position] = result.exit_code if isinstance(result, StmaskError) else 1
                tell(tell_failure, ctx, shown_name(outcome.source), result)
            else:
                codes.add(_exit_code(result))
                tell(tell_summary, result, f"{shown_name(outcome.source)}: ")
                tell(tell_problems, result, f"{shown_name(outcome.source)}: ")
    if failures:
        names = ", ".join(dict.fromkeys(shown_name(sources[position]) for position in sorted(failures)))
        tell(click.echo, on_one_line(f"{len(failures)} of {len(sources)} sources failed: {names}"), err=True)
    if EXIT_INTERRUPTED in codes or num_ended < len(sources):
        return EXIT_INTERRUPTED
    return failures[min(failures)] if failures else max(codes)


def _check_endless(sources: Sequence[str], parallel: int, max_frames: int | None) -> None:
    """Raise InputError for live sources that would keep later sources waiting for ever."""
    from .sources import is_camera, is_live, shown_name

    endless = [source for source in sources[:-1] if is_live(source)]
    if max_frames is None and len(endless) >= parallel and len(sources) > parallel:
        name = f"camera {endless[0]}" if is_camera(endless[0]) else shown_name(endless[0])
        raise InputError(f"{name} never ends, so the sources after it would never run: give "
                         f"--max-frames, or run all at the same time with --parallel {len(sources)}")


def _exit(ctx: click.Context, code: int, tell: Teller) -> None:
    if code == 0:  # other codes say more than that messages were lost
        tell.check()
    if code == EXIT_INTERRUPTED:
        ignore_interrupts()
        leave_workers(code)  # one may be waiting for a stream
    ctx.exit(code)


def _exit_code(summary: RunSummary) -> int:
    if summary.is_interrupted:
        return EXIT_INTERRUPTED
    return EXIT_DAMAGED_INPUT if summary.damage.is_damaged else 0


def _apply_no_temporal(options: dict[str, Any]) -> None:
    if options.pop("no_temporal"):
        if options["tracker"] not in (None, "frame"):
            raise InputError(f"--no-temporal and --tracker {options['tracker']} exclude each other")
        options["tracker"] = "frame"
