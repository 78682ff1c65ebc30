"""Names of the folders that hold results, by their sources."""
from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from .sources import is_camera, name_of_folder, shown_name
from .stream_address import is_address


def folder_name(source: str) -> str:
    """Default name of the result folder of a source as given to `sources.open_source`.

    A folder's name, a file's name without suffix, camera-N, or an address without its scheme, where everything but
    letters, digits, dots and underscores becomes hyphens; all as in `safe_name`.
    """
    path = Path(source)
    if is_camera(source):
        name = f"camera {int(source)}"
    elif is_address(source):
        name = re.sub(r"[^\w.]+", "-", shown_name(source).partition("://")[2]).strip("-.")
    else:
        name = name_of_folder(path) if os.path.isdir(path) else path.stem
    return safe_name(name)


def safe_name(name: str) -> str:
    """A name for a folder that holds results: spaces become hyphens, and outer dots are dropped."""
    return name.replace(" ", "-").strip(".") or "video"


def folder_names(sources: Sequence[str]) -> list[str]:
    """`folder_name` of each source; repeated names become name, name-2, name-3 and so on, in the given order.

    They do not depend on which sources can be opened, so that every run of the same sources uses the same names.
    """
    taken: dict[str, str] = {}
    for name in map(folder_name, sources):
        chosen, number = name, 1
        while _alike(chosen) in taken:
            number += 1
            chosen = f"{name}-{number}"
        taken[_alike(chosen)] = chosen
    return list(taken.values())


def _alike(name: str) -> str:
    """The same for names that a file system may take for one: some ignore case, and how accents are written."""
    return unicodedata.normalize("NFC", name).casefold()
