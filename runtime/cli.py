"""`stmask-run`: a video in, masks with identities out."""
from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stmask_deploy import __version__
from stmask_deploy.console import Command, is_verbose
from stmask_deploy.errors import EXIT_DAMAGED_INPUT, EXIT_INTERRUPTED, InputError, StmaskError

if TYPE_CHECKING:
    from .model import Model
    from .run import RunSummary

_EPILOG = """\b
Examples:
  stmask-run clip.mp4 -m model_stmask
  stmask-run frames/ -m model_stmask -o out --backend openvino --precision bf16
  stmask-run monday.mp4 tuesday.mp4 -m model_stmask -o out
  stmask-run 0 -m model_stmask --max-frames 300
  stmask-run clip.mp4 -m model_stmask --no-temporal --nms per-class --no-video

\b
Exit codes: 0 done; 1 the run failed; 2 bad input or usage; 3 finished, but the input was damaged; 4 output could not
be written; 5 backend or device; 130 interrupted, the results so far are complete. Of several sources the first failure
counts.
"""


@click.command(cls=Command, epilog=_EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-m", "--model", "bundle", type=click.Path(path_type=Path), metavar="BUNDLE",
              help="Folder written by stmask-export.  [default: the demo model, which knows six kinds of shapes]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder for the results, of several sources each in a folder of its own in it.  "
                   "[default: runs/NAME OF THE SOURCE]")
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option("--backend", type=click.Choice(["onnxruntime", "openvino"]), default="onnxruntime",
              help="Library that executes the graphs.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "tensorrt", "gpu"]), default="auto",
              help="cuda, tensorrt: NVIDIA GPU (onnxruntime); gpu: Intel GPU (openvino); auto: the fastest that works "
                   "without preparation.")
@click.option("--precision", type=click.Choice(["f32", "bf16", "f16", "int8"]), default="f32",
              help="Of the arithmetic; bf16 with openvino only; f16 with onnxruntime and int8 where the bundle "
                   "has it (stmask-export --half, --int8).")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: the backend's choice]")
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR",
              help="Keep what openvino and tensorrt compile in DIR, for faster starts.  [default: nothing is kept]")
@click.option("--tracker", type=click.Choice(["released", "paper", "frame"]),
              help="released: as the released code; paper: equations 15-17; frame: without temporal fusion.  "
                   "[default: released, or frame where the bundle has no temporal graph]")
@click.option("--no-temporal", is_flag=True, help="The same as --tracker frame.")
@click.option("--alpha", type=float, help="Paper tracker: weight of the embeddings' cosine.  [default: 1.0]")
@click.option("--beta", type=float, help="Paper tracker: weight of the mask IoU.  [default: 1.0]")
@click.option("--epsilon", type=float, help="Paper tracker: score a known object has to exceed.  [default: 0.7]")
@click.option("--new-object-score", type=float,
              help="Released and frame tracker: score a known object has to exceed.  [default: 1.4]")
@click.option("--detect-every", type=int, default=1, metavar="K",
              help="Detect on every K-th frame only, the key frames; in between the temporal graph moves the objects.")
@click.option("--score-decay", type=float, default=0.95,
              help="Factor on the score for each key frame without detection.")
@click.option("--max-age", "max_age_shown", type=int, default=10,
              help="Key frames an object is shown without being detected.")
@click.option("--conf", "score_threshold", type=float, default=0.05,
              help="Score above which objects are detected and in the results.")
@click.option("--nms", type=click.Choice(["cross-class", "per-class"]), default="cross-class",
              help="Suppression over all classes at once, or within each class.")
@click.option("--nms-iou", type=float, default=0.5, help="Overlap above which the worse of two detections goes.")
@click.option("--top-k", type=int, default=200, help="Candidates that enter suppression, best first.")
@click.option("--max-detections", type=int, default=100, help="Detections that leave per-class suppression.")
@click.option("--memory", type=click.Choice(["exact", "bounded"]),
              help="exact: no object is ever forgotten, as in the released code; bounded: time and memory a frame stay "
                   "flat.  [default: bounded for cameras, exact otherwise]")
@click.option("--retire-after", type=int, metavar="FRAMES",
              help="Bounded memory: forget objects not detected in more key frames than this.  [default: 30]")
@click.option("--no-video", is_flag=True, help="Do not write the annotated video.")
@click.option("--draw-conf", type=click.FloatRange(0, 1), default=0.3,
              help="Draw objects from this score on; the results hold the others too.")
@click.option("--max-frames", type=click.IntRange(min=1), help="Stop after that many frames.")
@click.option("--mode", type=click.Choice(["auto", "latency", "throughput"]), default="auto",
              help="throughput: several frames in flight; latency: each frame at once, nothing ahead; the results are "
                   "the same. auto: latency for cameras and single images.")
@click.option("--image-fps", type=float, default=30.0, help="Frames a second that the images of a folder stand for.")
@click.version_option(__version__, prog_name="stmask-run")
@click.pass_context
def main(ctx: click.Context, /, sources: Sequence[str], bundle: Path | None, output: Path | None, overwrite: bool,
         backend: str, device: str, precision: str, threads: int | None, cache: Path | None, no_video: bool,
         draw_conf: float, max_frames: int | None, mode: str, image_fps: float, **options: Any) -> None:
    """Find, segment and track the objects of SOURCE with an exported model.

    SOURCE is a video file, a folder of images, a single image, or the number of a camera. Written are results.jsonl (a
    line a frame, there while it runs), results.json (YouTube-VIS result list) and video.mp4 (annotated). Several are
    run one after another by one model; one that fails leaves the others their results.
    """
    from .model import load

    _apply_no_temporal(options)
    open_model = partial(load, bundle, backend, device, precision, threads, cache=cache, **options)
    run = partial(_run_source, image_fps=image_fps, draw=not no_video, draw_threshold=draw_conf, max_frames=max_frames,
                  overwrite=overwrite, mode=mode, show_progress=True)
    if len(sources) > 1:
        ctx.exit(_run_several(ctx, sources, open_model(), output, run))
    summary = run(sources[0], open_model, lambda name: output or Path("runs") / name, _tell_setup)
    _tell_summary(summary)
    ctx.exit(_exit_code(summary))


def _run_source(source: str, open_model: Callable[[], Model], folder_for: Callable[[str], Path],
                tell: Callable[[Model, bool], None], *, image_fps: float, overwrite: bool,
                **settings: Any) -> RunSummary:
    """Run one source into `folder_for` its name; the model, which may take a while to load, is opened last."""
    from .output_folder import OutputFolder, folder_name
    from .run import run_video
    from .sources import open_source

    with open_source(source, image_fps=image_fps) as opened:
        folder = folder_for(folder_name(opened))
        OutputFolder(folder).check(overwrite)
        model = open_model()
        model.reset(opened.is_live)
        tell(model, opened.is_live)
        return run_video(model, opened, folder, overwrite=overwrite, **settings)


def _run_several(ctx: click.Context, sources: Sequence[str], model: Model, output: Path | None,
                 run: Callable[..., RunSummary]) -> int:
    """Run sources one after another, past those that fail; gives the exit code of the first failure."""
    taken: set[str] = set()
    failures: dict[str, int] = {}
    damaged = False

    def folder_for(name: str) -> Path:
        return (output or Path("runs")) / _untaken(name, taken)

    def refuse_live(_: Model, is_live: bool) -> None:
        if is_live:
            raise InputError("a camera has no end, so the next source would never be run: run it alone")

    _tell_setup(model, is_live=False)
    for source in sources:
        try:
            summary = run(source, lambda: model, folder_for, refuse_live)
        except Exception as error:  # whatever it is, the other sources get their results
            failures.setdefault(source, _tell_failure(ctx, source, error))
            continue
        _tell_summary(summary, f"{source}: ")
        damaged |= summary.damage.is_damaged
        if summary.is_interrupted:
            return EXIT_INTERRUPTED
    if failures:
        click.echo(f"{len(failures)} of {len(sources)} sources failed: {', '.join(failures)}", err=True)
        return next(iter(failures.values()))
    return EXIT_DAMAGED_INPUT if damaged else 0


def _untaken(name: str, taken: set[str]) -> str:
    """`name`, or where another source has it name-2, name-3 and so on; it is taken then."""
    chosen, number = name, 1
    while chosen in taken:
        number += 1
        chosen = f"{name}-{number}"
    taken.add(chosen)
    return chosen


def _tell_failure(ctx: click.Context, source: str, error: Exception) -> int:
    """One line on standard error, with -v the traceback before it; gives the exit code."""
    if is_verbose(ctx):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    code, text = 1, f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, StmaskError):
        code, text = error.exit_code, str(error)
    click.echo(f"error: {text}" if text.startswith(source) else f"error: {source}: {text}", err=True)
    return code


def _exit_code(summary: RunSummary) -> int:
    if summary.is_interrupted:
        return EXIT_INTERRUPTED
    return EXIT_DAMAGED_INPUT if summary.damage.is_damaged else 0


def _apply_no_temporal(options: dict[str, Any]) -> None:
    if options.pop("no_temporal"):
        if options["tracker"] not in (None, "frame"):
            raise InputError(f"--no-temporal and --tracker {options['tracker']} exclude each other")
        options["tracker"] = "frame"


def _tell_setup(model: Model, is_live: bool) -> None:
    options = model.options
    click.echo(f"{model.description.model.variant} ({model.description.checkpoint_name}) on {model.device}; "
               f"tracker {options.tracker}, nms {options.nms}", err=True)
    if options.memory_note:
        click.echo(options.memory_note, err=True)
    if is_live:
        click.echo("no results.json for a camera: it would have to hold the whole video; results.jsonl has all of it",
                   err=True)


def _tell_summary(summary: RunSummary, of: str = "") -> None:
    click.echo(f"{of}{summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.2f} frames/s), "
               f"{summary.identities} identities")
    for path in summary.files:
        click.echo(str(path))
    if summary.lost_candidates:
        click.echo(f"warning: {of}{summary.lost_candidates} candidates had no place in the frame graph's rows and were "
                   "lost; export with more --max-candidates, or raise --conf", err=True)
    if summary.damage.is_damaged:
        click.echo(f"warning: {of}the input is damaged: {summary.damage}; the results are complete for what was read",
                   err=True)
    if summary.is_interrupted:
        click.echo(f"interrupted: {of}the results hold every frame up to here", err=True)
