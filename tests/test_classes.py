"""Class names: sizes and order of the datasets, guesses, and files."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from stmask_deploy.classes import COCO, OVIS, YTVIS_2019, YTVIS_2021, guess_class_names, read_class_names
from stmask_deploy.errors import InputError


def test_datasets() -> None:
    assert [len(names) for names in (YTVIS_2019, YTVIS_2021, OVIS, COCO)] == [40, 40, 25, 80]
    assert all(len(set(names)) == len(names) for names in (YTVIS_2019, YTVIS_2021, OVIS, COCO))
    assert (YTVIS_2019[0], YTVIS_2019[39]) == ("person", "tennis_racket")
    assert (YTVIS_2021[0], YTVIS_2021[39]) == ("airplane", "zebra")
    assert (OVIS[0], OVIS[24], COCO[0], COCO[79]) == ("person", "vehicle", "person", "toothbrush")
    assert list(YTVIS_2021) == sorted(YTVIS_2021)


@pytest.mark.reference
def test_order_of_the_released_configurations(reference_dir: Path) -> None:
    known = {"": YTVIS_2019, "_YTVIS2021": YTVIS_2021, "_OVIS": OVIS}
    for suffix, names in known.items():
        path = reference_dir / "manifests" / f"STMask_plus_base{suffix}.json"
        recorded = json.loads(path.read_text(encoding="utf-8"))["classes"]
        assert [name.lower().replace(" ", "_") for name in recorded] == [name.lower() for name in names]


@pytest.mark.parametrize("file_name, count, names", [
    ("STMask_plus_base.pth", 40, YTVIS_2019), ("STMask_plus_base_YTVIS2021.pth", 40, YTVIS_2021),
    ("anything.pth", 25, OVIS), ("anything.pth", 80, COCO),
    ("STMask_plus_base_YTVIS2021.pth", 25, OVIS),  # the tensors decide, the name only between equals
    ("STMask_plus_base_OVIS.pth", 40, YTVIS_2019),
])
def test_guess(file_name: str, count: int, names: tuple[str, ...]) -> None:
    guessed, reason = guess_class_names(file_name, count)
    assert guessed == names and "from the" in reason


def test_unknown_count() -> None:
    names, reason = guess_class_names("STMask_OVIS.pth", 3)
    assert names == ("class_1", "class_2", "class_3") and reason == "no known dataset has 3 classes"


@pytest.mark.parametrize("text", [
    "cat\ndog\n", " cat \n\n\tdog", "cat\r\ndog\r\n", '["cat", "dog"]', '\n [ "cat",\n"dog"]',
    "\ufeffcat\ndog", '\ufeff["cat", "dog"]',  # as some editors save
])
def test_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / "classes.txt", 2) == ("cat", "dog")


def test_other_alphabets(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("кот\nсобака\n", encoding="utf-8")
    assert read_class_names(tmp_path / "classes.txt", 2) == ("кот", "собака")


@pytest.mark.parametrize("content, message", [
    (b"", "names 0 classes, the checkpoint has 2"), (b"cat\n", "names 1 classes, the checkpoint has 2"),
    (b"background\ncat\ndog\n", r"names 3 classes, the checkpoint has 2 \(the background is not named\)"),
    (b"cat\ncat\n", "names a class twice: cat"), (b'["cat", 7]', "every entry must be a name"),
    (b'["cat", "dog"', "cannot be read"), (b"\xff\xfec\x00a\x00", "cannot be read"),
    (b'["cat", ["dog"]]', "every entry"), (b"[" * 200_000, "cannot be read"),
])
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_class_names(tmp_path / "classes.txt", 2)
    assert "classes.txt" in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_class_names(path, 2)
