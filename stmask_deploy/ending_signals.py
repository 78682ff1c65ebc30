"""Signals by which a system or a terminal ends a process, other than Ctrl-C."""
from __future__ import annotations

import signal

# SIGTERM, and where it exists SIGHUP: the terminal was closed, or the connection to it was lost.
ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
