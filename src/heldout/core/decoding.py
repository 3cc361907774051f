"""How the next token is chosen from the model's probabilities."""

from dataclasses import dataclass, fields

from heldout.core.errors import UserError

_TEMPERATURES = "0 (greedy) or between 0.0001 and 10000"


@dataclass(frozen=True)
class Decoding:
    """Greedy where ``temperature`` is 0, else sampling; a setting left as it is does nothing.

    ``top_k`` keeps that many tokens, ``top_p`` the likeliest that add up to that probability
    (Holtzman et al. 2020), ``min_p`` those of at least that share of the likeliest one's
    probability. ``repetition_penalty`` divides the scores of tokens that the text has already
    (Keskar et al. 2019); ``no_repeat_ngram_size`` forbids a second occurrence of so many tokens in
    a row. Both also work with greedy decoding, and both count the prompt. Raises UserError for a
    value outside its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        for name, holds, rule in (
            (
                "temperature",
                self.temperature == 0 or 1e-4 <= self.temperature <= 1e4,
                _TEMPERATURES,
            ),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0, "0 (off) or more"),
        ):
            if not holds:
                raise UserError(f"{name} must be {rule}, got {getattr(self, name)}.")
        if not self.samples and (self.top_p < 1 or self.top_k or self.min_p):
            raise UserError(
                "top_p, top_k and min_p choose among tokens that are drawn, and with temperature 0 "
                "none is: set temperature=1."
            )

    @property
    def samples(self) -> bool:
        return self.temperature > 0

    @property
    def name(self) -> str:
        """``greedy``, or what differs from it, such as ``temperature 1, top_p 0.9``."""
        changed = [
            f"{field.name} {getattr(self, field.name):g}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return ", ".join(changed if self.samples else ["greedy", *changed])


GREEDY = Decoding()
