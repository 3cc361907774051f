"""Components of rows into parts: at random by their texts, or by their dates."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from heldout.core.row import Part
from heldout.core.stats import ENOUGH_TEST, ENOUGH_TRAIN, LEAST_HELD_OUT


@dataclass(frozen=True)
class Component:
    """Rows that stay together."""

    positions: list[int]  # of its training rows
    key: bytes  # from its texts, so that the order of the rows does not matter
    latest: float = 0.0  # date of its latest row, where rows have dates


def deal(
    components: list[Component], shares: Mapping[Part, float], seed: int
) -> dict[Part, list[Component]] | None:
    """Components of the held-out parts; None where they would take too many. See split_rows."""
    for least in least_components(len(components), shares):
        parts = _dealt(components, shares, least, seed)
        if parts is not None:
            return parts
    return None


def deal_by_time(
    components: list[Component], shares: Mapping[Part, float]
) -> dict[Part, list[Component]] | None:
    """The latest components for the test part, those before them for validation.

    A component takes the place of its latest row. Sizes as in ``deal``; a component that is larger
    than the part stays in training.
    """
    for least in least_components(len(components), shares):
        parts = _dealt_by_time(components, shares, least)
        if parts is not None:
            return parts
    return None


def least_components(num: int, shares: Mapping[Part, float]) -> Iterator[dict[Part, int]]:
    """How many of ``num`` components each held-out part gets at least, in the order to try them.

    ``ENOUGH_TEST`` for the test part where that leaves ``ENOUGH_TRAIN`` to train on, else as many
    as for every part; nothing where both parts would take more than half, or than was asked for.
    """
    most = max(0.5, sum(shares.values())) + 1e-9
    for enough, to_train in ((ENOUGH_TEST, ENOUGH_TRAIN), (LEAST_HELD_OUT, 0)):
        least = {
            part: enough if part == "test" else LEAST_HELD_OUT
            for part, share in shares.items()
            if share
        }
        held_out = sum(max(shares[part] * num, count) for part, count in least.items())
        if held_out <= most * num and num - held_out >= to_train:
            yield least


def _dealt(
    components: list[Component],
    shares: Mapping[Part, float],
    least: Mapping[Part, int],
    seed: int,
) -> dict[Part, list[Component]] | None:
    num, num_rows = len(components), sum(len(c.positions) for c in components)
    wanted = {part: max(shares[part], count / num) for part, count in least.items()}
    dealt_rows = sum(
        len(c.positions)
        for c in components
        if len(c.positions) <= max(wanted.values()) * num_rows  # larger ones stay in train
    )
    scale = min(num_rows, max(0.5, sum(shares.values())) * dealt_rows / sum(wanted.values()))
    left = sorted(components, key=lambda component: digest(seed, "split", component.key))
    median = sorted(len(c.positions) for c in components)[num // 2]
    parts: dict[Part, list[Component]] = {}
    for part, share in wanted.items():
        part_rows = round(share * scale)
        taken, filled = [], 0
        for component in left:
            if filled + len(component.positions) <= part_rows:
                taken.append(component)
                filled += len(component.positions)
        left = _without(left, taken)
        # A few large components can fill the part: add small ones, for intervals over components.
        small = [component for component in left if len(component.positions) <= median]
        more = small[: max(0, least[part] - len(taken))]
        parts[part] = taken + more
        left = _without(left, more)
        if len(parts[part]) < least[part]:
            return None
    return parts


def _dealt_by_time(
    components: list[Component], shares: Mapping[Part, float], least: Mapping[Part, int]
) -> dict[Part, list[Component]] | None:
    num, num_rows = len(components), sum(len(c.positions) for c in components)
    left = sorted(components, key=lambda each: (each.latest, each.key))
    parts: dict[Part, list[Component]] = {}
    order: tuple[Part, ...] = ("test", "validation")
    for part in order:
        if part not in least:
            continue
        room = round(max(shares[part], least[part] / num) * num_rows)
        taken: list[Component] = []
        filled = 0
        for component in reversed(left):
            if filled >= room and len(taken) >= least[part]:
                break
            if len(component.positions) <= room:
                taken.append(component)
                filled += len(component.positions)
        parts[part] = taken
        left = _without(left, taken)
        if len(taken) < least[part]:
            return None
    return parts if left else None


def _without(components: list[Component], taken: list[Component]) -> list[Component]:
    gone = {component.key for component in taken}
    return [component for component in components if component.key not in gone]


def digest(seed: int, purpose: str, key: bytes) -> bytes:
    """16 bytes that order things at random, by the seed."""
    return hashlib.blake2b(f"{seed} {purpose} ".encode() + key, digest_size=16).digest()
