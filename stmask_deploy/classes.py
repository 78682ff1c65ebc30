"""Class names of the datasets that released checkpoints were trained on, in the order of their class ids (1-based)."""
from __future__ import annotations

import json
import re
from pathlib import Path

from .errors import InputError

YTVIS_2019 = tuple(
    "person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat cow fish train horse "
    "turtle bear motorbike giraffe leopard fox deer owl surfboard airplane truck zebra tiger elephant snowboard boat "
    "shark mouse frog eagle earless_seal tennis_racket".split())
YTVIS_2021 = tuple(
    "airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish flying_disc fox frog giant_panda "
    "giraffe horse leopard lizard monkey motorbike mouse parrot person rabbit shark skateboard snake snowboard "
    "squirrel surfboard tennis_racket tiger train truck turtle whale zebra".split())
OVIS = tuple(
    "person bird cat dog horse sheep cow elephant bear zebra giraffe poultry giant_panda lizard parrot monkey rabbit "
    "tiger fish turtle bicycle motorcycle airplane boat vehicle".split())
COCO = tuple(name.replace("-", "_") for name in (
    "person bicycle car motorcycle airplane bus train truck boat traffic-light fire-hydrant stop-sign parking-meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports-ball kite baseball-bat baseball-glove skateboard surfboard tennis-racket bottle wine-glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot-dog pizza donut cake chair couch "
    "potted-plant bed dining-table toilet tv laptop mouse remote keyboard cell-phone microwave oven toaster sink "
    "refrigerator book clock vase scissors teddy-bear hair-drier toothbrush").split())


def plain_name(name: str) -> str:
    """A class name normalised for comparison: case, spaces, hyphens and underscores do not matter."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def guess_class_names(file_name: str, count: int) -> tuple[tuple[str, ...], str]:
    """Names for `count` foreground classes, and why they were chosen.

    The file name only decides between datasets with the same number of classes; it never overrides the tensors.
    """
    known = {len(OVIS): (OVIS, "OVIS"), len(COCO): (COCO, "COCO"), len(YTVIS_2019): (YTVIS_2019, "YouTube-VIS 2019")}
    if count not in known:
        return tuple(f"class_{i}" for i in range(1, count + 1)), f"no known dataset has {count} classes"
    names, dataset = known[count]
    if count == len(YTVIS_2021) and "2021" in file_name:
        return YTVIS_2021, "YouTube-VIS 2021, from the file name"
    return names, f"{dataset}, from the number of classes"


def read_class_names(path: Path, count: int) -> tuple[str, ...]:
    """Read names from a text file (one per line) or a JSON list.

    Raises:
        InputError: the file cannot be read or does not hold `count` distinct names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"classes file {path} cannot be read ({error}); "
                         "give one name a line or a JSON list") from error
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"classes file {path}: every entry must be a name")
    names = tuple(name.strip() for name in names if name.strip())
    if len(names) != count:
        raise InputError(f"classes file {path} names {len(names)} classes, the checkpoint has {count} "
                         "(the background is not named)")
    if len(set(names)) != len(names):
        raise InputError(f"classes file {path} names a class twice: "
                         f"{', '.join(sorted({name for name in names if names.count(name) > 1}))}")
    return names
