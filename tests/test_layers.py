"""The direction of dependencies: core <- runtime, core <- export, one edge from verification to the runtime, and on top
evaluation (of what the runtime gives) and training (which uses everything)."""
from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CORE, EXPORT, RUNTIME = (REPOSITORY / name for name in ("stmask_deploy", "export", "runtime"))
PACKAGES = {CORE: "stmask_deploy", EXPORT: "stmask_deploy.export", RUNTIME: "stmask_deploy.runtime"}
DATASETS, SYNTHETIC, EVALUATION, BENCH = (CORE / name for name in ("datasets", "synthetic", "evaluation", "bench"))
NOT_AT_RUN_TIME = ("torch", "torchvision", "onnx", "onnxscript", "onnxsim", "safetensors")

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
"""


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def module_name(path: Path) -> str:
    """The name under which a file of the repository is installed."""
    root = next(folder for folder in PACKAGES if folder in path.parents)
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join((PACKAGES[root], *(part for part in parts if part != "__init__")))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Absolute names of everything a file imports; `from a import b` gives both a and a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module_name(path).split(".") if PACKAGES.keys() & set(path.parents) else []
    if path.name != "__init__.py":
        package = package[:-1]
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[:len(package) - node.level + 1] if node.level else []
            name = ".".join(start + (node.module.split(".") if node.module else []))
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def offences(folder: Path, forbidden: tuple[str, ...], *, top_level_only: bool = False) -> list[str]:
    return [f"{path.relative_to(REPOSITORY)} imports {name}" for path in sources(folder)
            for name in imports(path, top_level_only=top_level_only)
            if any(name == one or name.startswith(one + ".") for one in forbidden)]


def run_python(code: str, cwd: Path) -> str:
    """Output of a fresh interpreter that does not see the repository as its working directory."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_scanner_resolves_relative_imports(tmp_path: Path) -> None:
    # An import test that sees nothing passes on anything.
    found = {name for path in sources(CORE) for name in imports(path)}
    assert {"stmask_deploy.errors", "stmask_deploy.config.ModelConfig", "stmask_deploy.ops.deform_conv2d"} <= found
    stray = tmp_path / "stray.py"
    stray.write_text("def late():\n    from runtime.nms import keep\n")
    assert "runtime.nms" in set(imports(stray))
    assert list(imports(stray, top_level_only=True)) == []


def test_core_imports_neither_export_nor_runtime() -> None:
    # `stmask_deploy.load` is the one door to the runtime, opened when it is first used.
    allowed = ("stmask_deploy/__init__.py imports stmask_deploy.runtime.model",
               "stmask_deploy/evaluation/", "stmask_deploy/training/", "stmask_deploy/bench/")
    found = offences(CORE, ("stmask_deploy.export", "stmask_deploy.runtime"))
    assert [line for line in found if not line.startswith(allowed)] == []


def test_only_training_and_the_gate_of_int8_import_evaluation_and_nothing_imports_training() -> None:
    packages = ("stmask_deploy.evaluation", "stmask_deploy.training")
    found = [line for folder in (CORE, EXPORT, RUNTIME) for line in offences(folder, packages)]
    own = ("stmask_deploy/training/", "stmask_deploy/evaluation/", "stmask_deploy/bench/")
    judges = tuple(f"export/{name}.py imports stmask_deploy.evaluation." for name in ("int8_recording", "int8_gate"))
    assert any(line.startswith(judges) for line in found), "int8 is judged by what evaluation measures"
    own = (*own, *judges)
    assert [line for line in found if not line.startswith(own)] == []
    assert offences(EVALUATION, ("stmask_deploy.training", "stmask_deploy.export")) == []


@pytest.mark.parametrize("folder", [DATASETS, SYNTHETIC, EVALUATION, BENCH], ids=lambda folder: folder.name)
def test_data_and_evaluation_know_no_network(folder: Path) -> None:
    assert offences(folder, (*NOT_AT_RUN_TIME, "stmask_deploy.models", "stmask_deploy.ops")) == []


def test_the_benchmark_is_above_the_runtime_and_nothing_imports_it() -> None:
    assert offences(BENCH, ("stmask_deploy.training", "stmask_deploy.export")) == []
    found = [line for folder in (CORE, EXPORT, RUNTIME) for line in offences(folder, ("stmask_deploy.bench",))]
    assert [line for line in found if not line.startswith("stmask_deploy/bench/")] == []
    assert offences(BENCH, ("stmask_deploy.runtime",)), "it measures the runtime"


def test_runtime_imports_neither_torch_nor_onnx_nor_export() -> None:
    forbidden = (*NOT_AT_RUN_TIME, "stmask_deploy.export", "stmask_deploy.models", "stmask_deploy.ops")
    assert offences(RUNTIME, forbidden) == []


def test_only_verification_imports_the_runtime() -> None:
    found = offences(EXPORT, ("stmask_deploy.runtime",))
    modules = {line.split()[0] for line in found}
    assert modules <= {f"export/{name}.py" for name in ("verify", "verify_cli", "verify_levels", "torch_backend",
                                                        "track_agreement", "int8_recording", "int8")}
    assert modules, "verification runs the fresh graphs through the runtime"


def test_mapped_folders_are_imported_under_their_installed_name() -> None:
    # `import runtime.nms` works from the repository's root and makes a second copy of the module.
    folders = (CORE, EXPORT, RUNTIME, REPOSITORY / "tests", REPOSITORY / "benchmarks", REPOSITORY / "examples")
    assert [line for folder in folders for line in offences(folder, ("runtime", "export"))] == []


@pytest.mark.parametrize("folder", [EXPORT, RUNTIME], ids=["export", "runtime"])
def test_imports_inside_a_mapped_folder_are_relative(folder: Path) -> None:
    package = PACKAGES[folder]
    absolute = [f"{path.name}: line {node.lineno}" for path in sources(folder)
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith(package)
                or isinstance(node, ast.Import) and any(alias.name.startswith(package) for alias in node.names)]
    assert absolute == []


def test_top_of_the_core_loads_no_torch() -> None:
    found = [line for path in sorted(CORE.glob("*.py"))
             for line in imports(path, top_level_only=True)
             if line.split(".")[0] in NOT_AT_RUN_TIME or line.startswith(("stmask_deploy.models", "stmask_deploy.ops"))]
    assert found == []


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = set(run_python("import sys, stmask_deploy; print(*sys.modules)", tmp_path).split())
    assert "stmask_deploy" in loaded
    assert loaded.isdisjoint({"numpy", "cv2", "av", "click", "torch", "onnx", "onnxruntime", "openvino", "pycocotools"})


def test_every_module_of_runtime_and_benchmark_imports_without_torch_and_onnx(tmp_path: Path) -> None:
    names = [module_name(path) for path in (*sources(RUNTIME), *sources(BENCH))]
    assert len(names) > 1
    code = BLOCKER.format(blocked=NOT_AT_RUN_TIME) + f"""
import importlib
for name in {names!r}:
    importlib.import_module(name)
print(len([name for name in sys.modules if name.startswith(("stmask_deploy.runtime", "stmask_deploy.bench"))]))
"""
    assert int(run_python(code, tmp_path)) == len(names)


def test_runtime_modules_load_no_backend_until_one_is_asked_for(tmp_path: Path) -> None:
    # Either backend may be missing; the other must still work.
    names = [module_name(path) for path in (*sources(RUNTIME), *sources(BENCH))]
    code = BLOCKER.format(blocked=("onnxruntime", "openvino")) + f"""
import importlib
for name in {names!r}:
    importlib.import_module(name)
"""
    run_python(code, tmp_path)


def test_the_blocker_blocks(tmp_path: Path) -> None:
    code = BLOCKER.format(blocked=("json",)) + """
try:
    import json
except ImportError as error:
    print(error)
"""
    assert run_python(code, tmp_path).strip() == "blocked: json"
