"""What a model finds is told in the category ids of the dataset."""
from __future__ import annotations

from pathlib import Path

from stmask_deploy.datasets.annotations import Annotations, Category
from stmask_deploy.evaluation.track_dataset import in_categories


def test_classes_get_the_ids_that_the_annotation_file_gives_them() -> None:
    annotations = Annotations(Path("x.json"), (Category(7, "cat"), Category(3, "dog")), (), ())
    entries = [{"video_id": 1, "category_id": 2, "score": 0.5}, {"video_id": 1, "category_id": 1, "score": 0.25}]
    assert in_categories(entries, annotations) == [{"video_id": 1, "category_id": 3, "score": 0.5},
                                                   {"video_id": 1, "category_id": 7, "score": 0.25}]
    assert entries[0]["category_id"] == 2, "what was given is left alone"
    assert in_categories([], annotations) == []
