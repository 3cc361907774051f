"""General compressors on the documents that a model codes: what needs no model."""

# D documents

import lzma
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SEPARATOR = b"\0"  # between documents
XZ_PRESET = 9 | lzma.PRESET_EXTREME
ZSTD_LEVEL = 22  # the highest


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


def general_compressors(texts: Sequence[str], ends: Sequence[int]) -> list[General]:
    """zlib, xz and zstd at their strongest on the same UTF-8 bytes."""
    documents = [utf8(text) for text in texts]
    whole = [SEPARATOR.join(documents[:end]) for end in ends]
    engine = zlib.compressobj(9)
    written, totals = 0, []
    for number, document in enumerate(documents):
        written += len(engine.compress(SEPARATOR * bool(number) + document))
        totals.append(8 * (written + len(engine.copy().flush())))
    document_bits_D = np.diff(totals, prepend=0).astype(float)
    xz = [8 * len(lzma.compress(part, preset=XZ_PRESET)) for part in whole]
    zstandard = [8 * len(zstd.compress(part, level=ZSTD_LEVEL)) for part in whole]
    return [
        General("zlib", "level 9", _steps([totals[end - 1] for end in ends]), document_bits_D),
        General("xz", "preset 9 extreme", _steps(xz)),
        General("zstd", f"level {ZSTD_LEVEL}", _steps(zstandard)),
    ]


def _steps(totals: Sequence[int]) -> list[float]:
    return np.diff(totals, prepend=0).astype(float).tolist()


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
