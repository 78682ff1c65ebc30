"""The command `stmask-train`: whole runs, and one line with the right exit code for everything that can be wrong."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tiny_training import CONFIG, OPTIONS, Thing, write_clips, write_recipe
from torch import Tensor, nn

from stmask_deploy.ending_signals import ENDING_SIGNALS
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.training.cli import main
from stmask_deploy.training.recipe import shipped_recipes
from stmask_deploy.training.run_folder import claimed_folder
from stmask_deploy.training.snapshot import Snapshot
from stmask_deploy.training.weights import from_scratch

FILES = ("model.pth", "state.pth", "log.jsonl")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An annotation file with its frames."""
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = replace(OPTIONS, iterations=2, pairs_per_batch=1)
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.json", options)


def command(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu", "--workers", "0"])
    return done.exit_code, done.output


def put_run(folder: Path) -> dict[str, bytes]:
    """An earlier run, whose files say so."""
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(f"earlier {name}".encode())
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed_json(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    values = json.loads(source.read_text())
    change(values)
    target.write_text(json.dumps(values))
    return target


def test_from_nothing_to_fine_tuning(clips: Path, recipe: Path, tmp_path: Path) -> None:
    code, output = command(clips, "-o", tmp_path / "new", "--recipe", recipe, "--val", clips, "--rate", "0.002",
                           "--pairs", 2, "--seed", 5)
    assert code == 0, output
    assert "     2  AP 0.0" in output and output.splitlines()[-1].startswith(f"wrote {tmp_path / 'new' / 'model.pth'}")
    assert sorted(contents(tmp_path / "new")) == sorted(FILES)
    options = Snapshot.read(tmp_path / "new").options
    assert (options.learning_rate, options.pairs_per_batch, options.seed, options.iterations) == (0.002, 2, 5, 2)
    code, output = command(clips, "-o", tmp_path / "tuned", "--recipe", recipe, "--from",
                           tmp_path / "new" / "model.pth", "--centerness-order", "released", "--input-size", "48x64")
    assert code == 0, output
    assert "centerness order: released, as asked" in output and "input size: 48x64, as asked" in output
    config = load_checkpoint(tmp_path / "tuned" / "model.pth").config
    assert (config.centerness_order.value, config.input_size) == ("released", (48, 64))
    assert Snapshot.read(tmp_path / "tuned").is_trained


def test_ctrl_c_and_resume(clips: Path, recipe: Path, tmp_path: Path, usual_interrupt: None) -> None:
    clip = nn.utils.clip_grad_norm_

    def pressed(*arguments: Any) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return clip(*arguments)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", pressed)
        code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe)
    assert code == 130 and output.splitlines()[-1] == "interrupted"
    assert Snapshot.read(tmp_path / "run").iteration == 1
    code, output = command(clips, "-o", tmp_path / "run", "--resume")
    assert code == 0 and "resumed after iteration 1" in output
    assert Snapshot.read(tmp_path / "run").iteration == 2
    # The classes are those of the run.
    other = changed_json(clips, tmp_path / "other.json", lambda values: values["categories"][0].update(name="crate"))
    code, output = command(other, "--frames", clips.parent / "JPEGImages", "-o", tmp_path / "run", "--resume")
    assert code == 2 and "resume with the dataset it was started with" in output


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_to_all_its_processes_loses_no_step(clips: Path, tmp_path: Path, number: int) -> None:
    """As by a cluster that ends a job, or by a terminal that is closed. The process that reads must not end first."""
    recipe = write_recipe(tmp_path / "long.json", replace(OPTIONS, iterations=1000, pairs_per_batch=1, save_every=1000))
    usual = f"import signal; signal.signal({number}, signal.SIG_DFL); "  # under nohup it would be ignored
    program = [sys.executable, "-c", usual + "from stmask_deploy.training.cli import main; main()"]
    options = [clips, "-o", tmp_path / "run", "--recipe", recipe, "--device", "cpu", "--workers", "1"]
    log, told = tmp_path / "run" / "log.jsonl", tmp_path / "told"
    with open(told, "w") as output, subprocess.Popen([*program, *map(str, options)], stdout=output, stderr=output,
                                                     start_new_session=True) as process:
        try:
            while process.poll() is None and not (log.exists() and "losses" in log.read_text()):
                time.sleep(0.05)
            os.killpg(process.pid, number)
            assert process.wait(30) == 130, told.read_text()
        finally:
            process.kill()
    assert told.read_text().splitlines()[-1] == "interrupted" and "Error" not in told.read_text()
    assert Snapshot.read(tmp_path / "run").iteration >= 20


def test_a_resumed_run_is_evaluated_as_before(clips: Path, recipe: Path, tmp_path: Path, usual_interrupt: None) -> None:
    val, run = write_clips(tmp_path / "val", frames=2), tmp_path / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("stmask_deploy.training.run.evaluate_model", lambda *_: signal.raise_signal(signal.SIGINT))
        code, _ = command(clips, "-o", run, "--recipe", recipe, "--val", val)
    assert code == 130 and Snapshot.read(run).iteration == 2
    frames, moved = val.parent / "JPEGImages", tmp_path / "moved"
    frames.rename(moved)
    code, output = command(clips, "-o", run, "--resume")
    assert code == 2 and "the run was evaluated on it: say with --val where it lies now" in output
    code, output = command(clips, "-o", run, "--resume", "--val-frames", moved)
    assert code == 0 and "     2  AP 0.0" in output
    assert Snapshot.read(run).validation == (str(val), str(moved))
    # The run has ended: on the same annotations it is not evaluated again, on others it is.
    code, output = command(clips, "-o", run, "--resume")
    assert code == 0 and "     2  AP" not in output
    other = write_clips(tmp_path / "other", frames=2)
    code, output = command(clips, "-o", run, "--resume", "--val", other)
    assert code == 0 and "     2  AP 0.0" in output


def test_a_run_that_was_given_a_relative_path_resumes_from_anywhere(clips: Path, recipe: Path, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    val = write_clips(tmp_path / "val", frames=2)
    monkeypatch.chdir(tmp_path)
    code, output = command(clips, "-o", "run", "--recipe", recipe, "--val", val.relative_to(tmp_path))
    assert code == 0, output
    assert Snapshot.read(tmp_path / "run").validation == (str(val), str(val.parent / "JPEGImages"))


def test_a_resumed_run_goes_on_without_evaluation(clips: Path, recipe: Path, tmp_path: Path) -> None:
    val, run = write_clips(tmp_path / "val", frames=2), tmp_path / "run"
    code, _ = command(clips, "-o", run, "--recipe", recipe, "--val", val)
    assert code == 0
    val.unlink()
    code, output = command(clips, "-o", run, "--resume")
    assert code == 2 and "or go on without it with --no-val" in output
    code, output = command(clips, "-o", run, "--resume", "--no-val")
    assert code == 0 and "AP" not in output
    code, output = command(clips, "-o", run, "--resume")  # nor is it from now on
    assert code == 0 and "AP" not in output
    for wrong in (["--recipe", recipe], ["--resume", "--val", clips]):
        code, output = command(clips, "-o", run, "--no-val", *wrong)
        assert code == 2 and "--no-val is for a run that is resumed" in output


def test_a_broken_frame_of_the_validation_is_told_before_training(clips: Path, recipe: Path, tmp_path: Path) -> None:
    val = write_clips(tmp_path / "val", frames=2)
    frame = tmp_path / "val" / "JPEGImages" / "clip2" / "00001.png"
    frame.write_bytes(frame.read_bytes()[:100])
    earlier = put_run(tmp_path / "run")
    code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe, "--val", val, "--overwrite")
    assert code == 2 and output.startswith(f"error: {frame} cannot be read as a picture, or is cut off")
    assert contents(tmp_path / "run") == earlier


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["none.json"], 2, "none.json cannot be read"),
    (["{clips}", "--frames", "{folder}"], 2, "8 of the 8 frames that"),
    (["{empty}"], 2, "lists videos but no annotated objects"),
    (["{unseen}"], 2, "lists videos but no annotated objects"),
    (["{crowds}"], 2, "lists videos but no annotated objects, or crowds (iscrowd) alone"),
    (["{clips}", "--val", "{renamed}"], 2, "(box, ball) are not those of"),
    (["{clips}", "--val", "{empty}"], 2, "lists videos but no annotated objects"),
    (["{clips}", "--recipe", "dmeo"], 2, "recipe dmeo is neither shipped"),
    (["{clips}", "--recipe", "{clips}"], 2, "expected an object with 'model' and 'training'"),
    (["{clips}", "--iterations", "0"], 2, "Invalid value for '--iterations': 0 is not in the range"),
    (["{clips}", "--rate", "nan"], 2, "Invalid value for '--rate': nan is not a number"),
    (["{clips}", "--rate", "0"], 2, "Invalid value for '--rate': 0.0 is not in the range"),
    (["{clips}", "--pairs", "0"], 2, "Invalid value for '--pairs': 0 is not in the range 1<=x<=4096"),
    (["{clips}", "--input-size", "48"], 2, "HEIGHTxWIDTH"),
    (["{clips}", "--from", "{clips}"], 2, "is not a checkpoint"),
    (["{clips}", "--from", "none.pth"], 2, "checkpoint none.pth does not exist"),
    (["{clips}", "--device", "cuda"], 5, "PyTorch finds no CUDA device here"),
    (["{clips}", "--val-frames", "nowhere"], 2, "give --val too"),
])
def test_mistakes_end_with_one_line_and_leave_an_earlier_run(
    clips: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int,
    message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    frames = clips.parent / "JPEGImages"
    places = {"clips": clips, "folder": tmp_path}
    for name, change in {
        "empty": lambda values: values.update(annotations=[]),
        "unseen": lambda values: [one.update(segmentations=[None] * 4) for one in values["annotations"]],
        "crowds": lambda values: [one.update(iscrowd=1) for one in values["annotations"]],
        "renamed": lambda values: values["categories"][1].update(name="ball"),
    }.items():
        places[name] = changed_json(clips, tmp_path / f"{name}.json", change)
    earlier = put_run(tmp_path / "run")
    options: list[object] = ["-o", tmp_path / "run", "--overwrite", "--device", "cpu"]
    options += ["--val-frames", frames] if "--val" in arguments else []
    options += [] if "--frames" in arguments else ["--frames", frames]
    options += [] if "--recipe" in arguments else ["--recipe", recipe]
    done = CliRunner().invoke(main, [*map(str, options), *(one.format(**places) for one in arguments)])
    assert (done.exit_code, message in done.output) == (code, True), done.output
    assert "Traceback" not in done.output
    if "Usage:" not in done.output:
        assert len(done.output.splitlines()) == 1
    assert contents(tmp_path / "run") == earlier


@pytest.mark.parametrize("option", ["--from", "--recipe"])
def test_what_a_run_starts_from_is_not_lost(clips: Path, recipe: Path, tmp_path: Path, option: str) -> None:
    code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe, "--iterations", 1)
    assert code == 0, output
    if option == "--recipe":
        recipe = Path(shutil.copy(recipe, tmp_path / "run" / "log.jsonl"))
    earlier = contents(tmp_path / "run")
    source = tmp_path / "run" / "model.pth" if option == "--from" else recipe
    code, output = command(clips, "-o", tmp_path / "run", option, source, "--overwrite")
    assert (code, output) == (2, f"error: {source} is an input of this run and would be replaced; use another folder "
                                 "with -o\n")
    assert contents(tmp_path / "run") == earlier


def test_a_folder_with_a_run(clips: Path, recipe: Path, tmp_path: Path) -> None:
    earlier = put_run(tmp_path / "run")
    code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe)
    assert code == 4 and "holds a training run already; use --resume to go on with it, --overwrite" in output
    assert contents(tmp_path / "run") == earlier
    code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe, "--overwrite", "--iterations", 1)
    assert code == 0, output
    assert Snapshot.read(tmp_path / "run").iteration == 1
    assert b"earlier" not in (tmp_path / "run" / "log.jsonl").read_bytes()


def test_names_of_classes_are_those_of_a_checkpoint(clips: Path, recipe: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ncat\n")
    code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe, "--classes", names)
    assert code == 2 and "--classes names the classes of a checkpoint; give it with --from" in output
    code, output = command(clips, "-o", tmp_path / "run", "--resume", "--classes", names)
    assert code == 2 and "--classes" in output.split("leave out")[1]
    assert not (tmp_path / "run").exists()


def test_resuming_needs_a_run_and_takes_no_numbers(clips: Path, tmp_path: Path) -> None:
    code, output = command(clips, "-o", tmp_path / "run", "--resume")
    assert code == 2 and "there is no training to resume" in output
    assert not (tmp_path / "run").exists()
    code, output = command(clips, "-o", tmp_path / "run", "--resume", "--iterations", 5, "--rate", 1, "--pairs", 2,
                           "--from", "x.pth", "--input-size", "64x96", "--centerness-order", "anchor",
                           "--recipe", "demo", "--overwrite")
    assert code == 2
    for option in ("--iterations", "--rate", "--pairs", "--from", "--input-size", "--centerness-order", "--recipe",
                   "--overwrite"):
        assert option in output.split("leave out")[1]


def test_a_damaged_run(clips: Path, tmp_path: Path) -> None:
    earlier = put_run(tmp_path / "run")
    code, output = command(clips, "-o", tmp_path / "run", "--resume")
    assert code == 2 and "is damaged or not a training state" in output
    assert contents(tmp_path / "run") == earlier


def test_a_folder_that_cannot_be_made(clips: Path, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    code, output = command(clips, "-o", tmp_path / "file" / "run", "--recipe", recipe)
    assert code == 4 and len(output.splitlines()) == 1
    assert "cannot be written" in output and "choose another folder" in output


def test_a_loss_that_is_not_finite(clips: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stmask_deploy.training.learner.class_loss", lambda probs, _classes: probs.sum() / 0)
    code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe)
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("error: iteration 0: a loss is not finite (classes inf, boxes ") and last.endswith("--rate")


def test_a_frame_that_breaks_in_between(recipe: Path, tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips", [[Thing("box", (30, 40), (0, 0), 30)]], frames=1)
    (tmp_path / "clips" / "JPEGImages" / "clip1" / "00000.png").write_bytes(b"broken")
    code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe)
    assert code == 2 and "00000.png cannot be read as a picture, or is cut off" in output.splitlines()[-1]


def test_other_classes_start_anew(clips: Path, recipe: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, class_names=("one", "two", "three"))
    torch.save({"state_dict": from_scratch(config).state_dict(), "stmask_config": config.to_dict()},
               tmp_path / "three.pth")
    code, output = command(clips, "-o", tmp_path / "run", "--recipe", recipe, "--from", tmp_path / "three.pth")
    assert code == 0, output
    assert "class layers start anew: the checkpoint has 3 classes, the dataset 2 (6 parameters)" in output
    assert load_checkpoint(tmp_path / "run" / "model.pth").config.class_names == ("box", "disc")


def test_a_reader_that_goes_away_ends_nothing(clips: Path, recipe: Path, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("click.echo", gone)
    assert command(clips, "-o", tmp_path / "run", "--recipe", recipe)[0] == 4
    assert load_checkpoint(tmp_path / "run" / "model.pth").config.class_names == ("box", "disc")


def test_help_names_the_recipes() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    assert all(name in done.output for name in (*shipped_recipes(), "torchrun", "130 interrupted"))


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_run_left_is_removed(tmp_path: Path, resume: bool) -> None:
    for name in (".state.pth.123.tmp", ".model.pth.7.tmp", "own.tmp"):
        (tmp_path / name).write_bytes(b"half")
    with claimed_folder(tmp_path, overwrite=False, resume=resume):
        pass
    assert list(contents(tmp_path)) == ["own.tmp"]
