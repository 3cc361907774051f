"""Which trial of a learning-rate search can surely not win any more, before it has come to its end.

The held-out loss of a training at a constant rate falls ever more slowly. A trial has lost that
would end above the lowest loss of the best one so far even if its own went on falling with the sum
of its rates to the power ``BEND``, steeper than losses do (``benchmarks/rate_search.py``). All
trials are measured on the same documents, so that the difference is paired, over groups.
"""

# D documents

from heldout.core.losses import DocumentLosses
from heldout.core.stats import ratio_estimate

LEVEL = 0.95  # of the interval that must lie above 0
BEND = 0.6  # 1 is a straight line


def has_lost(base: DocumentLosses, now: DocumentLosses, best: DocumentLosses, more: float) -> bool:
    """Whether the trial ends above ``best`` for sure.

    ``base`` are the losses before the first step, ``now`` the lowest of the trial, ``more`` is what
    ``further_fall`` gives. Never with so few groups that the interval is withheld.
    """
    end_D = now.nll_nats_D + more * (now.nll_nats_D - base.nll_nats_D)
    behind = ratio_estimate(
        end_D - best.nll_nats_D, now.num_tokens_D, now.groups_D, level=LEVEL, signed=True
    )
    return behind.interval.low > 0


def further_fall(step: int, steps: int, warmup: int) -> float | None:
    """How far the loss may still fall after ``step`` of so many, as a share of its fall so far.

    The rate rises over ``warmup`` steps and then stays; None before it has risen.
    """
    if step < warmup:
        return None
    done, whole = (number - warmup / 2 for number in (step, steps))
    return (whole / done) ** BEND - 1
