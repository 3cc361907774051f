"""A run of W&B on disk, ``run-ID.wandb``, also one that was made offline.

Records in blocks of 32 KiB as in LevelDB's log, each a ``Record`` message; the fields that are read
are history 2 (item 1: key 1, nested_key 2, value_json 16) and exit 18 (wandb 0.31.0,
``proto/wandb_internal.proto``). Nothing needs to be installed. Checksums are not compared.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heldout.jobs.diagnosing.raw_log import RawLog, raw_log
from heldout.jobs.diagnosing.wire import BrokenMessage, fields

READS = "run-*.wandb of W&B"
PLACES = ("*.wandb", "*/*.wandb", "*/*/*.wandb")

_BLOCK, _HEADER = 32768, 7
_WHOLE, _FIRST = 1, 2
_MIDDLE, _LAST = 3, 4


def read(path: Path, head: bytes) -> RawLog | None:
    """One row per call of ``log``."""
    if not head.startswith(b":W&B"):
        return None
    rows: list[dict[str, Any]] = []
    ended = False
    for record in _records(path.read_bytes()):
        try:
            for key, value in fields(record):
                if key == 2 and isinstance(value, bytes):
                    rows.append(_row(value))
                ended = ended or key == 18
        except BrokenMessage:
            continue
    return raw_log(rows, has_ended=ended)


def _records(content: bytes) -> Iterator[bytes]:
    place, parts = _HEADER, b""
    while place + _HEADER <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        piece = content[place + _HEADER : place + _HEADER + size]
        if len(piece) < size or kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST):
            return  # half written
        parts = piece if kind in (_WHOLE, _FIRST) else parts + piece
        if kind in (_WHOLE, _LAST):
            yield parts
        place += _HEADER + size


def _row(history: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in fields(history):
        if key != 1 or not isinstance(item, bytes):
            continue
        names, value = [], b""
        for part, content in fields(item):
            if part in (1, 2) and isinstance(content, bytes):
                names.append(content.decode("utf-8", "replace"))
            elif part == 16 and isinstance(content, bytes):
                value = content
        try:
            found["/".join(names)] = json.loads(value)
        except (ValueError, RecursionError):
            continue
    return found
