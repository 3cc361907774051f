import numpy as np
import pytest

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Evaluation, RollBack, Stop
from heldout.regularizers.bregman_proximal_point import BregmanProximalPoint
from heldout.regularizers.early_stopping import EarlyStopping
from heldout.regularizers.rollback import Rollback
from heldout.training.compatible import check_together


def history(*means):
    tokens = np.full(4, 10)
    return [
        Evaluation(step, step / 2, DocumentLosses(mean * tokens, tokens, tokens, np.arange(4)))
        for step, mean in enumerate(means)
    ]


def decisions(rule, *means):
    """What is decided after each evaluation; C goes on, R rolls back, S stops."""
    letters = {Continue: "C", RollBack: "R", Stop: "S"}
    found = [rule.decide(history(*means[: end + 1])) for end in range(len(means))]
    return "".join(letters[type(decision)] for decision in found)


def test_rolls_back_after_patience_and_stops_after_the_last():
    rule = Rollback(patience=2, max_rollbacks=2)
    assert decisions(rule, 1.0, 0.9, 0.8) == "CCC"
    assert decisions(rule, 1.0, 0.9, 0.95, 0.93) == "CCCR"
    # Counting starts again after a rollback, and after a new low.
    assert decisions(rule, 1.0, 1.1, 1.1, 1.1, 0.9, 1.0, 1.0, 1.1, 1.1) == "CCRCCCRCS"
    assert decisions(Rollback(patience=1, max_rollbacks=1), 1.0, 1.1, 0.9, 0.95) == "CRCS"


def test_the_best_so_far_is_what_counts_not_the_last():
    assert decisions(Rollback(patience=2), 1.0, 0.8, 0.9, 0.85) == "CCCR"


def test_says_what_to_do_and_why():
    decision = Rollback(patience=1, rate_factor=0.3).decide(history(1.0, 1.2))
    assert decision == RollBack(0.3, "no new low of the held-out loss in 1 evaluations")
    stop = Rollback(patience=1, max_rollbacks=1).decide(history(1.0, 1.2, 1.2))
    assert stop == Stop("no new low of the held-out loss in 1 evaluations after 1 rollbacks")


def test_a_gain_within_min_delta_is_no_new_low():
    assert decisions(Rollback(patience=2, min_delta=0.05), 1.0, 0.97, 0.96) == "CCR"
    assert decisions(Rollback(patience=2, min_delta=0.05), 1.0, 0.97, 0.94) == "CCC"


def test_bad_values():
    for name, value in [("patience", 0), ("rate_factor", 0.0), ("max_rollbacks", 0)]:
        with pytest.raises(UserError, match=rf"Rollback\({name}=...\) must be .* got {value}"):
            Rollback(**{name: value})
    with pytest.raises(UserError, match="the weights that were given up; use EarlyStopping"):
        check_together([BregmanProximalPoint(), Rollback()])
    with pytest.raises(UserError, match="stops by itself"):
        check_together([EarlyStopping(), Rollback()])
    with pytest.raises(UserError, match=r"use EarlyStopping, or train\.optimizer=adamw"):
        Rollback().check(None, Recipe().replace(train={"optimizer": "schedule_free"}))
