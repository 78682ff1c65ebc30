"""Words of messages."""
from __future__ import annotations

import reprlib
import unicodedata

MAX_SHOWN = 80  # characters
_BREAKING = ("Cc", "Zl", "Zp")  # controls, line and paragraph separators
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # what follows runs the other way
_SHORT = reprlib.Repr()  # of nested containers, which may share parts and then have endless texts
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxfrozenset = 30
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 10 * MAX_SHOWN


def counted(number: int, one: str, many: str = "") -> str:
    """"1 frame", "2 frames"; `many` is for irregular plurals."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def is_unicode(text: str) -> bool:
    """Whether a text can be written in UTF-8; half a surrogate pair, as JSON and file names may hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def on_one_line(text: str) -> str:
    """`text` with line breaks and other control characters, which file names may contain, as escapes such as "\\n".

    So are the characters that reorder text.
    """
    return "".join(char.encode("unicode_escape").decode()
                   if char in _REORDERING or unicodedata.category(char) in _BREAKING else char for char in text)


def shown(value: object) -> str:
    """A value that somebody gave, for a message: on one line, and not long."""
    try:
        text = on_one_line(" ".join(_SHORT.repr(value).split()))
    except ValueError:  # Python writes no numbers of thousands of digits
        return f"a very long {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN - 4]} ..."
