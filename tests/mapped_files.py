"""What of files is in memory."""
from __future__ import annotations

from pathlib import Path


def mapped(folder: Path) -> tuple[int, int]:
    """Sizes in KiB: of the mapped files of this folder, and of what is in memory of them. On Linux."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    found = [dict(line.split(":") for line in lines[place + 1:place + 5]) for place, line in enumerate(lines)
             if f" {folder.resolve()}/" in line]
    size, resident = (sum(int(sizes[name].split()[0]) for sizes in found) for name in ("Size", "Rss"))
    return size, resident
