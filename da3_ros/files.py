"""Writing files so that a crash, a full disk or a signal never leaves half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from da3_ros.errors import OutputError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes beside ``path``, then move it there; the folder is created where it is missing.

    Raises:
        OutputError: the place cannot be written; what was there before is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)  # mkstemp gives 0600
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {reason(error)}; choose another place") from error


def reason(error: Exception) -> str:
    """What the system says of a failed file operation, for the end of a sentence."""
    return (getattr(error, "strerror", None) or str(error)).lower()
