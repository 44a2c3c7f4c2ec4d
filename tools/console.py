"""What the set-up prints: one line per step, with the time it took and a sign of life while it runs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HEARTBEAT_S = 15.0  # between signs of life where the output is not a terminal
TAIL_LINES = 20  # of the log, shown when a step fails


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


def say(text: str) -> None:
    """Print one line at once."""
    print(f"[setup] {text}", flush=True)


def run(
    title: str, command: list[str], log: Path, env: dict[str, str] | None = None, show_failure: bool = True
) -> None:
    """Run a long command with its output in `log`; raise SetupError if it fails, and show how the log ends."""
    begin = time.monotonic()
    say(f"{title} ...")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            watch(process, title, log, begin)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        if show_failure:
            print("\n".join(last_lines(log, TAIL_LINES)), file=sys.stderr)
        raise SetupError(f"{title}: failed; mend what the end of {log} says, then run this again.")
    say(f"{title}: {time.monotonic() - begin:.1f} s")


def watch(process: subprocess.Popen[bytes], title: str, log: Path, begin: float) -> None:
    """Wait for the process; show the seconds and the latest line of its output."""
    terminal = sys.stdout.isatty()
    shown = begin
    while process.poll() is None:
        time.sleep(0.1)
        now = time.monotonic()
        if now - shown < (0.5 if terminal else HEARTBEAT_S):
            continue
        shown = now
        status = f"{title} ... {now - begin:.0f} s  {''.join(last_lines(log, 1))}"
        if terminal:
            print(f"\r\033[K[setup] {status[:100]}", end="", flush=True)
        else:
            say(status[:160])
    if terminal:
        print("\r\033[K", end="", flush=True)


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that are not empty."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()][-count:]
