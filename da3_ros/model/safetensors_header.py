"""The table of contents of a safetensors file, read and checked without any library.

Only this format is ever opened: it holds numbers, whereas a pickle holds code that runs when it is read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from da3_ros.errors import ModelError
from da3_ros.files import reason

_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "U32": 32, "U64": 64}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the file."""

    dtype: str  # as the format names it: F32, F16, BF16, ...
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file holds."""

    path: Path
    size: int  # bytes of the file
    tensors: dict[str, TensorInfo]

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(tensor.count for tensor in self.tensors.values())

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Kinds of numbers, the most frequent first."""
        return tuple(kind for kind, _ in Counter(t.dtype for t in self.tensors.values()).most_common())


def read_header(path: Path) -> Header:
    """Read and check the header; the numbers are left alone.

    Raises:
        ModelError: the file cannot be read, is no safetensors file, or is cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            text = file.read(length) if length <= _LONGEST_HEADER else b""
    except OSError as error:
        raise ModelError(f"cannot read {path}: {reason(error)}") from error
    if not text.startswith(b"{"):
        raise ModelError(_what_else(path, start, size))
    if len(text) < length:
        raise ModelError(_CUT.format(path=path, size=size, needed=f"more than {8 + length}"))
    try:
        entries = json.loads(text)
        tensors, end = _tensors(entries)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(_FOREIGN.format(path=path)) from error
    if size != 8 + length + end:
        if size < 8 + length + end:
            raise ModelError(_CUT.format(path=path, size=size, needed=8 + length + end))
        raise ModelError(f"{path} has {size - 8 - length - end} bytes more than its header tells of; download it again")
    return Header(path, size, tensors)


_FOREIGN = "{path} is not a safetensors file; download it again, or convert it to safetensors"
_CUT = "{path} is cut short ({size} bytes of {needed}); download it again"


def _what_else(path: Path, start: bytes, size: int) -> str:
    """A sentence for a file that does not begin like safetensors; the usual mistakes are named."""
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return f"{path} holds pickled weights, which can run code when they are opened; convert it to safetensors"
    if start == b"version ":
        return (
            f"{path} is a pointer of Git LFS ({size} bytes), not the weights; run 'git lfs pull' in its repository or "
            "download the model again"
        )
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return f"{path} is a web page, not the weights; download the model again"
    if size < 16:
        return f"{path} is empty or cut short ({size} bytes); download it again"
    return _FOREIGN.format(path=path)


def _tensors(entries: dict[str, dict[str, object]]) -> tuple[dict[str, TensorInfo], int]:
    """Tensors and the end of their data; raises TypeError, KeyError or ValueError where the header makes no sense."""
    tensors: dict[str, TensorInfo] = {}
    spans = []
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        begin, end = (int(x) for x in entry["data_offsets"])  # type: ignore[attr-defined]
        shape = tuple(int(x) for x in entry["shape"])  # type: ignore[attr-defined]
        tensors[name] = TensorInfo(str(entry["dtype"]), shape)
        if min((0, *shape)) < 0 or 8 * (end - begin) != tensors[name].count * _BITS[tensors[name].dtype]:
            raise ValueError(f"{name} has {end - begin} bytes for a shape of {shape}")
        spans.append((begin, end))
    spans.sort()
    last = 0
    for begin, end in spans:
        if begin != last:
            raise ValueError("the tensors overlap or leave gaps")
        last = end
    return tensors, last
