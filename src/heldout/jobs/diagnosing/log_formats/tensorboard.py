"""TensorBoard's event files, also a folder of them: of a Trainer, Lightning, torchtune and others.

TFRecords (length, checksum, message, checksum) of ``Event`` messages; the fields that are read are
step 2 and summary 5, of whose values tag 1, simple_value 2 and tensor 8 (tensorboard 2.21.0,
``compat/proto``). Nothing needs to be installed. Checksums are not compared.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from heldout.jobs.diagnosing.raw_log import RawLog, raw_log, rows_by_step
from heldout.jobs.diagnosing.wire import BrokenMessage, fields, float_of

READS = "TensorBoard's events.out.tfevents.*"
PLACES = tuple(f"{above}events.out.tfevents.*" for above in ("", "*/", "*/*/", "*/*/*/"))


def read(path: Path, head: bytes) -> RawLog | None:
    """The scalars of the file and of those beside it: a run that went on has several."""
    if not _is_event_file(head):
        return None
    series: dict[str, list[tuple[int, float]]] = {}
    beside = sorted(path.parent.glob("events.out.tfevents.*"))
    for file in beside if path in beside else [path]:
        for message in _messages(file.read_bytes()):
            try:
                for step, tag, value in _scalars(message):
                    series.setdefault(tag, []).append((step, value))
            except BrokenMessage:
                continue
    return raw_log(rows_by_step(series))


def _is_event_file(head: bytes) -> bool:
    """Whether the first record names the version of the format."""
    return b"brain.Event:" in head[:64]


def _messages(content: bytes) -> Iterator[bytes]:
    place = 0
    while place + 12 <= len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        if place + 16 + size > len(content):
            return  # half written
        yield content[place + 12 : place + 12 + size]
        place += 16 + size


def _scalars(message: bytes) -> Iterator[tuple[int, str, float]]:
    step, summaries = 0, []
    for key, value in fields(message):
        if key == 2 and isinstance(value, int):
            step = value
        elif key == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for _, one in fields(summary):
            found = dict(fields(one)) if isinstance(one, bytes) else {}
            tag, scalar = found.get(1), found.get(2)
            if scalar is None and isinstance(found.get(8), bytes):
                scalar = _of_tensor(found[8])
            if isinstance(tag, bytes) and scalar is not None:
                yield step, tag.decode("utf-8", "replace"), float_of(scalar)


def _of_tensor(tensor: int | bytes) -> bytes | None:
    """The value of a scalar tensor of floats: kind 1, and its content 4 or float_val 5."""
    assert isinstance(tensor, bytes)
    found = dict(fields(tensor))
    value = found.get(4) or found.get(5)
    is_float = found.get(1) == 1 and isinstance(value, bytes) and len(value) == 4
    return value if is_float and isinstance(value, bytes) else None
