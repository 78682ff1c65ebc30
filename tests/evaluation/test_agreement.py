from __future__ import annotations

from dataclasses import replace

from stmask_deploy.evaluation.agreement import Agreement

SOME = Agreement(frames=3, reference_rows=8, rows=5, matched=4, mean_iou=91.26, lowest_iou=60.0, same_class=75.0,
                 mean_score_difference=0.012345, highest_score_difference=0.25, mean_box_difference_px=1.5,
                 highest_box_difference_px=12.0, reference_tracks=2, tracks=3, switches=1, switches_per_ten_tracks=5.0,
                 ap=40.0, ap50=80.0, ap75=20.04)


def test_text() -> None:
    assert SOME.summary() == "recall 50.0, precision 80.0, mask IoU 91.3, 1 identity switches, AP 40.0"
    assert SOME.lines() == [
        "3 frames; 8 rows of 2 identities in the reference, 5 of 3 here",
        "rows: 4 matched, recall 50.0, precision 80.0",
        "masks: mean IoU 91.3, lowest 60.0",
        "classes: the same in 75.0 % of the matched",
        "scores: differ by 0.01235, at most 0.25",
        "boxes: differ by 1.5 px, at most 12 px",
        "identities: 1 switches, 5.0 per ten tracks",
        "AP 40.0, AP50 80.0, AP75 20.0"]


def test_what_is_not_known_is_a_dash() -> None:
    nothing = replace(SOME, reference_rows=0, rows=0, matched=0, mean_iou=None, lowest_iou=None, same_class=None,
                      mean_score_difference=None, highest_score_difference=None, mean_box_difference_px=None,
                      highest_box_difference_px=None, switches_per_ten_tracks=None, ap=None, ap50=None, ap75=None)
    assert (nothing.recall, nothing.precision) == (None, None)
    assert nothing.lines()[1:6] == [
        "rows: 0 matched, recall -, precision -", "masks: mean IoU -, lowest -",
        "classes: the same in - % of the matched", "scores: differ by -, at most -",
        "boxes: differ by - px, at most - px"]
    assert nothing.to_dict()["recall"] is None and nothing.to_dict()["rows"] == 0
