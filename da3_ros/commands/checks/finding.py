"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_NAME = 22  # characters


class State(Enum):
    """How it is."""

    OK = "OK"
    INFO = "-"  # neither good nor bad
    MISSING = "missing"
    WRONG = "wrong"  # there, and of no use


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    state: State
    name: str
    found: str
    fix: str = ""  # what to do where it is not as it should be
    needed: bool = False  # nothing runs without it

    @property
    def stops(self) -> bool:
        """Whether something cannot be run because of it."""
        return self.needed and self.state in (State.MISSING, State.WRONG)


def line(finding: Finding) -> str:
    """In columns."""
    fix = f"; {finding.fix}" if finding.fix else ""
    return f"{finding.state.value:<8} {finding.name:<{_NAME}} {finding.found}{fix}"
