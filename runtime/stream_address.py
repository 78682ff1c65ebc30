"""Addresses of network streams, and what of them may be shown."""
from __future__ import annotations

import itertools
import re

CHANNEL = re.compile(r"(?<=&)(channel|subtype|stream)=(\d{1,4})(?=&)")  # by which recorders tell cameras apart


def is_address(source: object) -> bool:
    """Whether `source` is an address, such as rtsp://camera/stream."""
    return isinstance(source, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", source) is not None


def holds_address(source: str) -> bool:
    """Whether `source` is an address, perhaps with a blank or quote before it."""
    return "://" in source


def public_address(address: str) -> str:
    """An address for messages and results: without user, password and anything else that may hold a secret.

    Of the query only numbers of channels are kept, as two of a recorder differ by nothing else.
    """
    scheme, rest = address.split("://", 1)
    place, query = (re.split("[?#]", rest, maxsplit=1) + [""])[:2]
    if "@" in place:  # all before the last one, as a password may hold what it must not
        place = place.rpartition("@")[2]
    elif "@" in query:  # perhaps a password with a question mark in it
        return f"{scheme.lower()}://..."
    path = itertools.takewhile(lambda part: "=" not in part, place.split("/"))
    channel = "&".join("=".join(field) for field in CHANNEL.findall(f"&{query}&"))
    return f"{scheme.lower()}://{'/'.join(path)}{'?' * bool(channel)}{channel}"
