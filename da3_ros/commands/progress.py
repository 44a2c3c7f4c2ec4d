"""Progress on stderr: one line that is redrawn on a terminal, a line every ten per cent (or slower) in a log."""

from __future__ import annotations

import sys
import time

_REDRAW_S = 0.1
_LOG_S = 2.0


class Progress:
    """Shows how far a long step is; use as a context manager."""

    def __init__(self, label: str) -> None:
        """``label`` says what is being done."""
        self._label = label
        self._live = sys.stderr.isatty()
        self._started = time.monotonic()
        self._shown = self._started
        self._decile = -1
        self._open = False
        self._done = False

    def __call__(self, done: int, total: int, remark: str = "") -> None:
        """Report ``done`` of ``total`` units."""
        now = time.monotonic()
        decile = 10 * done // max(total, 1)
        due = now - self._shown >= (_REDRAW_S if self._live else _LOG_S) and (self._live or decile != self._decile)
        if not due and (done < total or self._done):
            return
        self._done = done >= total
        self._shown, self._decile = now, decile
        elapsed = now - self._started
        left = f", {elapsed / done * (total - done):.0f} s left" if done else ""
        text = f"{self._label} {done}/{total}  {elapsed:.0f} s{left}  {remark}".rstrip()
        sys.stderr.write(f"\r\x1b[2K{text}" if self._live else f"{text}\n")
        sys.stderr.flush()
        self._open = self._live

    def __enter__(self) -> Progress:
        """Start the clock."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line finished."""
        if self._open:
            sys.stderr.write("\n")
            sys.stderr.flush()


class Steps:
    """Tells of long steps whose number is not known beforehand (``types.Tell``); use as a context manager."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = ""
        self._started = time.monotonic()

    def __call__(self, what: str, share: float | None) -> None:
        """Report what is being done, and the share of it that is done where that is known; what is done (1) stays."""
        if share == 1:
            sys.stderr.write(f"\r\x1b[2K{what}\n" if self._live else f"{what}\n")
        elif self._live:
            told = "" if share is None else f"  {100 * share:.0f} %"
            sys.stderr.write(f"\r\x1b[2K{what} ...{told}  {time.monotonic() - self._started:.0f} s")
        elif what != self._last:
            sys.stderr.write(f"{what} ...\n")
        self._last = what
        sys.stderr.flush()

    def __enter__(self) -> Steps:
        """Start the clock."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the line away: what it told is over."""
        if self._live and self._last:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
