"""General compressors on the documents that a model codes: what needs no model."""

# D documents

import importlib
import lzma
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.measurement import NotMeasured

SEPARATOR = b"\0"  # between documents
XZ_PRESET = 9 | lzma.PRESET_EXTREME


@dataclass(frozen=True)
class General:
    """What a general compressor makes of the documents, joined by a zero byte."""

    name: str
    settings: str
    block_bits: list[float]  # added by each block
    document_bits_D: np.ndarray | None = None  # where it can be told

    @property
    def bits(self) -> float:
        return sum(self.block_bits)


def general_compressors(
    texts: Sequence[str], ends: Sequence[int]
) -> tuple[list[General], list[NotMeasured]]:
    """zlib, xz and, where Python has it, zstd at their strongest on the same UTF-8 bytes."""
    documents = [utf8(text) for text in texts]
    whole = [SEPARATOR.join(documents[:end]) for end in ends]
    engine = zlib.compressobj(9)
    written, totals = 0, []
    for number, document in enumerate(documents):
        written += len(engine.compress(SEPARATOR * bool(number) + document))
        totals.append(8 * (written + len(engine.copy().flush())))
    document_bits_D = np.diff(totals, prepend=0).astype(float)
    found = [
        General("zlib", "level 9", _steps([totals[end - 1] for end in ends]), document_bits_D),
        General(
            "xz",
            "preset 9 extreme",
            _steps([8 * len(lzma.compress(part, preset=XZ_PRESET)) for part in whole]),
        ),
    ]
    zstd = _zstd()
    if zstd is None:
        reason = "needs Python 3.14 or `pip install zstandard`"
        return found, [NotMeasured("zstd", reason)]
    found.append(General("zstd", "level 19", _steps([8 * len(zstd(part)) for part in whole])))
    return found, []


def _steps(totals: Sequence[int]) -> list[float]:
    return np.diff(totals, prepend=0).astype(float).tolist()


def _zstd() -> Callable[[bytes], bytes] | None:
    for name, make in (
        ("compression.zstd", lambda module: lambda data: module.compress(data, level=19)),
        ("zstandard", lambda module: module.ZstdCompressor(level=19).compress),
    ):
        try:
            return make(importlib.import_module(name))
        except ImportError:
            continue
    return None


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
