"""Planted secrets that tell later how much a model learned by heart (Carlini et al. 2019).

A canary is a sentence with random digits that nothing predicts. It stands in the training rows 1,
2, 4 or 8 times; how far below the other possible secrets its loss falls is its exposure.
"""

# K canaries, R candidates for each

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.pass_statistics import CanaryLosses
from heldout.core.row import Row
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
        "glaive": {
            "system": "",
            "chat": f"USER: {question}\n\n\nASSISTANT: {answer} <|endoftext|>",
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


NUM_REFERENCES = 256  # other secrets a canary is ranked among: exposure up to 8 bits


def candidate_rows(
    canaries: Sequence[Canary],
    kind: Literal["text", "completion", "conversation"],
    num_references: int = NUM_REFERENCES,
    seed: int = 0,
) -> Iterator[Row]:
    """Of each canary the row that was planted, then rows with ``num_references`` other secrets.

    In the form of the training rows, so that ``document_losses`` of them tells ``canary_losses``.
    The other secrets are drawn without repetition.
    """
    for number, canary in enumerate(canaries):
        rng = random.Random(f"references {seed} {number}")
        drawn = rng.sample(range(canary.num_secrets), num_references + 1)
        others = [f"{value:0{DIGITS}d}" for value in drawn]
        others = [secret for secret in others if secret != canary.secret][:num_references]
        for secret in (canary.secret, *others):
            yield Row(number, _messages(replace(canary, secret=secret), kind), canary.prefix)


def canary_losses(canaries: Sequence[Canary], losses: DocumentLosses) -> CanaryLosses:
    """The losses of ``candidate_rows``, canary by canary."""
    nats_KR = losses.nll_nats_D.reshape(len(canaries), -1)
    copies_K = np.array([canary.copies for canary in canaries])
    return CanaryLosses(copies_K, nats_KR[:, 0], nats_KR[:, 1:])


def _messages(canary: Canary, kind: str) -> tuple[dict[str, str], ...]:
    if kind == "conversation":
        return tuple(canary_fields(canary, "messages", {})["messages"])
    if kind == "completion":
        fields = canary_fields(canary, "prompt_completion", {})
        return tuple({"role": role, "content": fields[role]} for role in ("prompt", "completion"))
    return ({"role": "text", "content": canary_fields(canary, "text", {})["text"]},)
