import numpy as np
import pytest
from made_up_laws import observed

from heldout.core.errors import UserError
from heldout.jobs.laws import all_laws
from heldout.scaling.rollout import Rollout, choose, cutoffs, rollouts

LAWS = {law.name: law for law in all_laws()}


def test_cutoffs_split_at_values_that_exist():
    values = np.array([1.0, 1, 1, 2, 2, 3, 3, 4, 4, 5])
    assert cutoffs(values) == [2.0, 3.0, 4.0]
    assert cutoffs(np.ones(5)) == []


def test_the_law_that_made_the_runs_is_chosen():
    laws = [LAWS[name] for name in ("chinchilla", "lovelace", "muennighoff")]
    runs = observed(LAWS["lovelace"], noise=0.003)
    made = rollouts(laws, runs, axes=("compute", "epochs"))
    assert {each.axis for each in made} == {"compute", "epochs"}
    for each in made:
        assert each.num_train + each.num_test == len(runs)
    choice = choose(laws, runs, made)
    assert choice.law == "lovelace"
    assert choice.left_out == ("chinchilla", "muennighoff")


def test_the_median_forgives_one_cutoff_and_ties_go_to_the_simpler_law():
    runs = observed(LAWS["chinchilla"], repeats=False)
    laws = [LAWS["chinchilla"], LAWS["over_training"], LAWS["hybrid"]]
    made = [
        Rollout("compute", c, 10, 10, {"chinchilla": a, "over_training": b, "hybrid": h})
        for c, a, b, h in ((1, 0.1, 0.101, 0.2), (2, 0.1, 0.101, 0.2), (3, 9.0, 9.0, 0.2))
    ]
    assert choose(laws, runs, made).law == "over_training"
    with pytest.raises(UserError, match="too few for rolled-out forecasts"):
        choose(laws, runs, [])
