"""The base model's loss on generated text: known answers on made-up losses."""

from dataclasses import replace

import numpy as np
import pytest

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.pass_statistics import Generations
from heldout.core.probe import Evidence
from heldout.probes.generated_loss import GeneratedLoss

NUM_PROMPTS = 24


def written(own: float, reference: float, num_tokens: int = 20, num_groups: int = NUM_PROMPTS):
    """Texts of ``num_tokens`` tokens, references of 12; each token costs ``own`` nats, or theirs.

    A little noise by prompt, the same in both; what lies beyond the shorter text costs 100 nats.
    """
    noise_P = np.linspace(-0.2, 0.2, NUM_PROMPTS)

    def nats(each: float, num: int) -> list[np.ndarray]:
        return [np.where(np.arange(num) < 12, each + noise, 100.0) for noise in noise_P]

    return Generations(
        prompts=["p"] * NUM_PROMPTS,
        texts=["x" * 60] * NUM_PROMPTS,
        references=["y" * 60] * NUM_PROMPTS,
        token_ids=[np.arange(num_tokens)] * NUM_PROMPTS,
        reference_ids=[np.arange(12)] * NUM_PROMPTS,
        ended=np.zeros(NUM_PROMPTS, dtype=bool),
        groups=np.array([f"g{place % num_groups}" for place in range(NUM_PROMPTS)]),
        row_index=np.arange(NUM_PROMPTS),
        own_nats=nats(own, num_tokens),
        reference_nats=nats(reference, 12),
    )


def measured(generated: Generations | None) -> Measurement | NotMeasured:
    generations = {} if generated is None else {("best", "test"): generated}
    (found,) = GeneratedLoss().measure(Evidence({}, generations=generations))
    return found


def test_loss_on_samples_minus_that_on_held_out_text_of_equal_length():
    found = measured(written(5.5, 4.0))
    assert found.name == "generated_nll_best"
    assert found.value == pytest.approx(5.5)
    assert found.contrasts["human"].difference == pytest.approx(1.5)
    assert found.contrasts["human"].interval.low > 1
    assert measured(written(1.5, 4.0)).contrasts["human"].interval.high < 0


def test_tokens_that_are_no_characters_are_judged_as_well():
    """A broken model writes pieces of characters, whose text is empty."""
    found = measured(replace(written(9.0, 4.0), texts=[""] * NUM_PROMPTS))
    assert found.contrasts["human"].difference == pytest.approx(5.0)


def test_what_the_base_wrote_decides_nothing():
    """A base model that ends at once leaves no text to compare with, and none is needed."""
    base = replace(written(1.0, 4.0), token_ids=[np.arange(1)] * NUM_PROMPTS)
    evidence = Evidence(
        {}, generations={("best", "test"): written(5.5, 4.0), ("base", "test"): base}
    )
    (found,) = GeneratedLoss().measure(evidence)
    assert found.contrasts["human"].difference == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("generated", "reason"),
    [
        (None, "the model wrote nothing after held-out rows"),
        (replace(written(1.0, 2.0), own_nats=None), "name it with --base"),
        (written(1.0, 2.0, num_tokens=5), "on for 8 tokens or more, has 0 of 0: give more rows"),
        (written(1.0, 2.0, num_groups=4), "rows of 8 groups where the model and the row both go "),
    ],
)
def test_why_it_was_not_measured(generated, reason):
    found = measured(generated)
    assert isinstance(found, NotMeasured)
    assert reason in found.reason
