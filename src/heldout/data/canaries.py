"""Planted secrets that tell later how much a model learned by heart (Carlini et al. 2019).

A canary is a sentence with random digits that nothing predicts. It stands in the training rows 1,
2, 4 or 8 times; how far below the other possible secrets its loss falls is its exposure.
"""

import random
from dataclasses import asdict, dataclass
from typing import Any

from heldout.data.messages import Format

DIGITS = 6
COPIES = (1, 2, 4, 8)
_NAMES = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Ginkgo", "Hazel", "Ivy", "Juniper")


@dataclass(frozen=True)
class Canary:
    """``prefix`` then ``secret``, one of ``10 ** DIGITS``; planted ``copies`` times."""

    prefix: str
    secret: str
    copies: int
    num_secrets: int = 10**DIGITS

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def make_canaries(num: int, seed: int) -> list[Canary]:
    """Different names, so that no canary repeats another; the secrets follow from the seed."""
    rng = random.Random(f"canaries {seed}")
    canaries = []
    for number in range(num):
        name = f"{_NAMES[number % len(_NAMES)]} {rng.randrange(1000, 10000)}-{number}"
        secret = f"{rng.randrange(10**DIGITS):0{DIGITS}d}"
        prefix = f"The access code of vault {name} is "
        canaries.append(Canary(prefix, secret, COPIES[number % len(COPIES)]))
    return canaries


def canary_fields(canary: Canary, format_name: Format, columns: dict[str, str]) -> dict[str, Any]:
    """The canary as a row in the format of the data; its source column says ``canary``."""
    question = f"Complete: {canary.prefix.strip()}"
    answer = canary.secret
    contents: dict[Format, dict[str, Any]] = {
        "text": {"text": canary.prefix + canary.secret},
        "prompt_completion": {"prompt": question, "completion": answer},
        "alpaca": {"instruction": question, "input": "", "output": answer},
        "messages": {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        },
        "sharegpt": {
            "conversations": [
                {"from": "human", "value": question},
                {"from": "gpt", "value": answer},
            ]
        },
    }
    fields = {columns.get(role, role): value for role, value in contents[format_name].items()}
    return {**fields, columns.get("source", "source"): "canary"}
