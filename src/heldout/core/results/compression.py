"""How short a data set becomes under a model, typed; its page and its JSON hold nothing else."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from heldout.core.finite import without_infinity
from heldout.core.measurement import Interval, Measurement, NotMeasured
from heldout.core.shown import Shown

SCHEMA = "heldout.compress/1"


@dataclass(frozen=True)
class Block:
    """Documents that are coded together, with a model trained on all earlier blocks.

    ``checkpoint`` is the one that codes the block, 0 the start; to name it costs ``name_bits``,
    which are part of ``bits``. The bits of ``compressors`` are what the block adds to their output.
    """

    num_documents: int
    num_tokens: int
    num_bytes: int
    bits: float
    start_bits: float  # under the base model, or uniform over the vocabulary from scratch
    checkpoint: int
    epochs: float  # of training until that checkpoint
    name_bits: float
    compressors: dict[str, float]
    interval: Interval | None  # of bits per byte

    @property
    def bits_per_byte(self) -> float:
        return self.bits / self.num_bytes


@dataclass(frozen=True)
class TwoPart:
    """A code of the weights, then of the data given these weights; bits of the whole data set.

    ``parameter_bits`` is L(theta), the length of the change of the weights under ``prior``.
    """

    prior: str
    parameter_bits: float
    data_bits: float

    @property
    def bits(self) -> float:
        return self.parameter_bits + self.data_bits


@dataclass(frozen=True)
class CompressResult(Shown):
    """The code lengths of one data set, of the same with its words shuffled, and their bounds."""

    data: str
    sha256: str
    model: str
    start_code: str  # what codes the first block: "base model" or "uniform"
    num_documents: int
    num_groups: int
    num_tokens: int
    num_bytes: int
    trained_parameters: int
    blocks: list[Block]
    shuffled_blocks: list[Block]
    two_part: list[TwoPart]
    measurements: list[Measurement | NotMeasured]
    headline: str
    notes: list[str]
    settings: dict[str, Any]
    report: str | None = None

    def table_rows(self) -> Iterable[Any]:
        """The code length of each block."""
        return self.blocks

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.compress/1``."""

        def blocks(part: list[Block]) -> list[dict[str, Any]]:
            return [
                without_infinity({**asdict(each), "bits_per_byte": each.bits_per_byte})
                for each in part
            ]

        return {
            "schema": SCHEMA,
            **{
                key: getattr(self, key)
                for key in (
                    "headline",
                    "data",
                    "sha256",
                    "model",
                    "start_code",
                    "num_documents",
                    "num_groups",
                    "num_tokens",
                    "num_bytes",
                    "trained_parameters",
                    "notes",
                    "settings",
                    "report",
                )
            },
            "blocks": blocks(self.blocks),
            "shuffled_blocks": blocks(self.shuffled_blocks),
            "two_part": [
                {**asdict(each), "bits": each.bits, "bits_per_byte": each.bits / self.num_bytes}
                for each in self.two_part
            ],
            "measurements": [each.to_json() for each in self.measurements],
        }
