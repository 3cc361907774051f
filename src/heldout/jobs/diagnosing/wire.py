"""Fields of protocol-buffer messages, by number: enough to read scalars that others logged.

Source: protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


class BrokenMessage(ValueError):
    """Bytes that are no message, or the beginning of one."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an int of a varint, else its bytes. Raises BrokenMessage."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise BrokenMessage(f"kind {kind}")
        if place + size > len(message):
            raise BrokenMessage("cut short")
        yield key >> 3, message[place : place + size]
        place += size


def float_of(value: int | bytes) -> float:
    """Of four bytes a float, of eight a double, of a varint its number."""
    if isinstance(value, int):
        return float(value)
    return float(struct.unpack("<f" if len(value) == 4 else "<d", value)[0])


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise BrokenMessage("cut short")
