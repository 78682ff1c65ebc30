"""`stmask-eval`: scores results against annotations or against another run."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import __version__
from ..console import Command
from ..option_types import FloatRange, NamedPath
from ..wording import on_one_line

if TYPE_CHECKING:
    from .agreement import Agreement
    from .evaluation import Evaluation

_EPILOG = """\b
Examples:
  stmask-eval results.json valid.json
  stmask-eval runs/ valid.json --json scores.json
  stmask-eval runs/0a7b/results.jsonl valid.json --video 0a7b
  stmask-eval --agreement runs/f32/results.jsonl runs/bf16/results.jsonl

\b
Exit codes: 0 done; 1 the run failed; 2 bad input or usage; 4 output could not be written; 130 interrupted.
"""


@click.command(cls=Command, epilog=_EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.argument("results", type=NamedPath())
@click.argument("annotations", required=False, type=NamedPath())
@click.option("--video", "videos", multiple=True, metavar="ID_OR_NAME",
              help="Evaluate on this video only; may be given several times.  [default: all videos; of results.jsonl "
                   "the one that is named as its source]")
@click.option("--shown-score", type=FloatRange(0, 1),
              help="Minimum score of the results that identities and masks are judged by.  [default: 0.3]")
@click.option("--agreement", "reference", type=NamedPath(), metavar="REFERENCE",
              help="Compare with the results.jsonl of another run over the same video, which is taken as the truth; "
                   "without ANNOTATIONS.")
@click.option("--json", "json_path", type=NamedPath(), metavar="FILE", help="Write the numbers as JSON.")
@click.option("--overwrite", is_flag=True, help="Replace the JSON file if it exists.")
@click.version_option(__version__, prog_name="stmask-eval")
def main(results: Path, annotations: Path | None, videos: tuple[str, ...], shown_score: float | None,
         reference: Path | None, json_path: Path | None, overwrite: bool) -> None:
    """Evaluate RESULTS on a dataset with ANNOTATIONS in YouTube-VIS format.

    RESULTS is a result list for many videos (results.json with the video and category ids of ANNOTATIONS), the
    results.jsonl of one video, or a folder with one subfolder per video that has the video's name and holds its
    results.jsonl. Prints the average precision and recall of YouTube-VIS, identity switches and mask quality.
    """
    from ..report_file import ReportFile

    report_file = ReportFile(json_path, overwrite, _inputs(results, annotations, reference))
    scores: Agreement | Evaluation
    if reference is not None:
        if annotations is not None or videos or shown_score is not None:
            raise click.UsageError("--agreement compares two runs and takes neither ANNOTATIONS, --video nor "
                                   "--shown-score")
        scores = _agreement(reference, results)
    elif annotations is None:
        raise click.UsageError("give ANNOTATIONS, the annotation file, or --agreement REFERENCE, another run")
    else:
        scores = _evaluation(results, annotations, videos, shown_score)
    report_file.write(scores.to_dict())
    for line in scores.lines():
        click.echo(line)


def _inputs(*paths: Path | None) -> list[Path]:
    """The files at these paths, and everything else that the same runs have written."""
    from stmask_deploy.runtime.output_folder import OutputFolder

    from .run_file import RESULTS_NAME

    given = [path for path in paths if path is not None]
    folders = [folder for path in given for folder in (path, path.parent, *(run.parent for run in
                                                                            path.glob(f"*/{RESULTS_NAME}")))]
    return given + [file for folder in folders if (folder / RESULTS_NAME).exists()
                    for file in OutputFolder(folder).existing()]


def _agreement(reference: Path, results: Path) -> Agreement:
    from .compare_runs import compare_runs
    from .run_file import read_run_file

    return compare_runs(read_run_file(reference), read_run_file(results))


def _evaluation(results: Path, annotations_path: Path, videos: tuple[str, ...], shown_score: float | None
                ) -> Evaluation:
    from ..datasets.annotations import read_annotations
    from .evaluate import SHOWN_SCORE, evaluate
    from .sources import read_result_list

    annotations = read_annotations(annotations_path)
    given = read_result_list(results, annotations, videos)
    if given.missing:
        names = ", ".join(given.missing[:5]) + (", ..." if len(given.missing) > 5 else "")
        click.echo(on_one_line(f"warning: {len(given.missing)} of {len(given.video_ids)} videos have no results and "
                               f"are scored as empty: {names}"), err=True)
    return evaluate(annotations, given.entries, video_ids=given.video_ids, where=str(results),
                    shown_score=SHOWN_SCORE if shown_score is None else shown_score)
