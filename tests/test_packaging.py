"""What is built and installed: wheel, sdist, editable installation, console scripts."""
from __future__ import annotations

import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import stmask_deploy

REPOSITORY = Path(__file__).resolve().parent.parent
MAPPED = {"stmask_deploy.export": "export", "stmask_deploy.runtime": "runtime"}
SCRIPTS = {"stmask-export", "stmask-run", "stmask-verify", "stmask-eval", "stmask-synth", "stmask-train",
           "stmask-bench"}
NOT_SOURCE = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "build", "dist", "demo",
                                    "runs", "*.egg-info", ".gpu", "synth")


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return config


def listed(section: str, key: str) -> list[str]:
    return [line for line in setup_cfg()[section][key].splitlines() if line and not line.startswith("#")]


def run(*arguments: object, cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run([str(one) for one in arguments], cwd=cwd, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the repository."""
    folder = tmp_path_factory.mktemp("packaging") / "checkout"
    shutil.copytree(REPOSITORY, folder, ignore=NOT_SOURCE)
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path) -> Path:
    """A folder with the sdist and the wheel built from it."""
    out = checkout.parent / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout, cwd=checkout.parent)
    return out


def wheel_names(built: Path) -> set[str]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


def installed_names() -> set[str]:
    """Paths inside the wheel that the sources call for."""
    names = {"stmask_deploy/py.typed"}
    names |= {path.relative_to(REPOSITORY).as_posix() for folder in ("pretrained", "training/recipes")
              for path in (REPOSITORY / "stmask_deploy" / folder).rglob("*")
              if path.is_file() and "__pycache__" not in path.parts}
    names |= {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "stmask_deploy").rglob("*.py")}
    for package, folder in MAPPED.items():
        names |= {f"{package.replace('.', '/')}/{path.name}" for path in (REPOSITORY / folder).glob("*.py")}
    return names


def test_listed_packages_are_those_on_disk() -> None:
    folders = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "stmask_deploy").rglob("*.py")}
    on_disk = {".".join(folder.parts) for folder in folders} | set(MAPPED)
    assert set(listed("options", "packages")) == on_disk


def test_every_package_has_an_init_file() -> None:
    for package in listed("options", "packages"):
        folder = MAPPED.get(package, package.replace(".", "/"))
        assert (REPOSITORY / folder / "__init__.py").is_file(), package


@pytest.mark.parametrize("folder", MAPPED.values())
def test_mapped_folders_are_flat(folder: str) -> None:
    # A sub-package would have to be mapped too, and would be missing from wheels until it is.
    assert [path for path in (REPOSITORY / folder).iterdir() if path.is_dir() and path.name != "__pycache__"] == []


def test_wheel_holds_the_sources_and_nothing_else(built: Path) -> None:
    names = wheel_names(built)
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == installed_names()
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)


def test_sdist_holds_what_a_build_and_the_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "constraints.txt", "setup.cfg", "pyproject.toml",
              "stmask_deploy/py.typed", "export/__init__.py", "runtime/__init__.py", "tests/conftest.py",
              "tests/test_packaging.py", "stmask_deploy/pretrained/shapes.pth", "stmask_deploy/pretrained/clip.mp4",
              "stmask_deploy/pretrained/shapes_stmask/frame.onnx", "stmask_deploy/training/recipes/demo.json",
              "benchmarks/results/2026-11-25-epyc-bench-r50-int8.json"}
    assert wanted <= names
    assert not [name for name in names if name.startswith((".venv", "build/", "demo/"))]


def test_metadata(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = wheel.read(name).decode()
    lines = metadata.splitlines()
    assert f"Version: {stmask_deploy.__version__}" in lines
    assert "License-Expression: Apache-2.0" in lines
    assert "Requires-Python: >=3.10" in lines
    extras = ("cpu", "gpu", "cuda", "openvino", "export", "int8", "train", "bench", "dev")
    assert {f"Provides-Extra: {extra}" for extra in extras} <= set(lines)
    base = [line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not [line for line in base if "torch" in line or "onnx" in line]


def test_installed_wheel_imports_from_elsewhere(built: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target,
        next(built.glob("*.whl")), cwd=tmp_path)
    code = ("import stmask_deploy.runtime, stmask_deploy.export, stmask_deploy.models\n"
            "print(stmask_deploy.runtime.__file__)\nprint(stmask_deploy.export.__file__)")
    files = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target)).split()
    assert files == [str(target / "stmask_deploy" / folder / "__init__.py") for folder in ("runtime", "export")]
    assert {path.name for path in (target / "bin").iterdir()} == SCRIPTS


def test_editable_installation_sees_new_modules_at_once(checkout: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False, system_site_packages=False)
    python = tmp_path / "env" / "bin" / "python"
    setuptools_folder = Path(importlib.metadata.distribution("setuptools").locate_file(""))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index",
        "--no-build-isolation", "-e", checkout, cwd=tmp_path, PYTHONPATH=str(setuptools_folder))
    fresh = checkout / "runtime" / "added_after_installation.py"
    fresh.write_text("VALUE = 7\n")
    try:
        code = "from stmask_deploy.runtime import added_after_installation as m; print(m.VALUE, m.__file__)"
        assert run(python, "-c", code, cwd=tmp_path).split() == ["7", str(fresh)]
    finally:
        fresh.unlink()


def test_console_scripts_resolve() -> None:
    scripts = {entry.name: entry for entry in importlib.metadata.distribution("stmask-deploy").entry_points
               if entry.group == "console_scripts"}
    assert set(scripts) == SCRIPTS
    for entry in scripts.values():
        assert callable(entry.load()), entry
