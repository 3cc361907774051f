import numpy as np
import pytest

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.regularizer import Continue, Evaluation, Stop
from heldout.regularizers.early_stopping import EarlyStopping


def history(*means, noise=0.3, num_documents=100):
    """Evaluations with these mean losses; what makes documents hard is the same each time."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, num_documents)
    tokens = np.full(num_documents, 10)
    found = []
    for step, mean in enumerate(means):
        values = mean + hard - hard.mean() + noise * _centered(rng.normal(size=num_documents))
        found.append(
            Evaluation(
                step,
                step / 2,
                DocumentLosses(10 * values, tokens, tokens, np.arange(num_documents)),
            )
        )
    return found


def _centered(values):
    return values - values.mean()


def test_steady_small_gains_go_on():
    """The Trainer's own callback stops here: no step gains its threshold."""
    rule = EarlyStopping(patience=3, min_delta=0.05)
    losses = [1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82]
    for end in range(1, len(losses) + 1):
        assert rule.decide(history(*losses[:end])) == Continue()


def test_patience_counts_evaluations_without_a_new_low():
    rule = EarlyStopping(patience=2, certain_rise=9)
    assert rule.decide(history(1.0, 0.9, 0.95)) == Continue()
    assert isinstance(rule.decide(history(1.0, 0.9, 0.95, 0.94)), Stop)
    assert rule.decide(history(1.0, 0.9, 0.95, 0.89)) == Continue()


def test_a_certain_rise_stops_at_once():
    rule = EarlyStopping(patience=50, certain_rise=0.02)
    decision = rule.decide(history(1.0, 0.9, 1.2))
    assert isinstance(decision, Stop)
    assert "certainly risen" in decision.reason


def test_an_uncertain_or_tiny_rise_does_not():
    rule = EarlyStopping(patience=50, certain_rise=0.02)
    assert rule.decide(history(1.0, 0.9, 0.95, noise=2)) == Continue()
    # Certain, since nearly noiseless, but far too small to matter.
    assert rule.decide(history(1.0, 0.9, 0.905, noise=0.001)) == Continue()


def test_bad_values():
    with pytest.raises(UserError, match=r"EarlyStopping\(patience=...\) must be 1 or more, got 0."):
        EarlyStopping(patience=0)
