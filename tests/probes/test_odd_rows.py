import math
import random
import re

import pytest

from heldout.core.measurement import NotMeasured
from heldout.core.probe import Evidence
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.jobs.kit.clean_losses import losses_of
from heldout.lm.load import load_model
from heldout.probes.odd_rows import OddRows, odd_rows

NUM_GARBLED = 15


def rows(part, garbled=0):
    draw = random.Random(0)
    found = []
    for place, entry in enumerate(question_answer_rows(45, 1, 45, 1)[part]):
        words = entry["completion"]
        if place < garbled:
            words = re.sub(r"\w+", lambda w: "".join(draw.sample(w[0], len(w[0]))), words)
        prompt = {"role": "prompt", "content": entry["prompt"]}
        answer = {"role": "completion", "content": words}
        found.append(Row(place, (prompt, answer), entry["group"]))
    return found


@pytest.fixture(scope="module")
def losses():
    """Of the embedded model, which has been tuned on none of these rows."""
    loaded = load_model("package:heldout", device="cpu")
    parts = {"sound": rows("train"), "garbled": rows("train", NUM_GARBLED), "test": rows("test")}
    return {
        name: losses_of(loaded.model, loaded.tokenizer, part, Recipe())
        for name, part in parts.items()
    }


def excess(train, test):
    (found,) = OddRows().measure(Evidence({("base", "train"): train, ("base", "test"): test}))
    return found


def test_sound_rows_are_no_odder_than_held_out_ones(losses):
    contrast = excess(losses["sound"], losses["test"]).contrasts["heldout"]
    assert contrast.interval.low <= 0


def test_garbled_rows_are_found(losses):
    found = excess(losses["garbled"], losses["test"])
    assert found.contrasts["heldout"].interval.low > 0
    odd = odd_rows(losses["garbled"], losses["test"])
    assert odd[:NUM_GARBLED].mean() > 0.8
    assert odd[NUM_GARBLED:].mean() < 0.2


def test_rows_against_themselves_are_as_odd_as_defined(losses):
    found = excess(losses["test"], losses["test"])
    assert math.isclose(found.contrasts["heldout"].difference, 0, abs_tol=1e-12)
    assert 0.02 < found.value < 0.08


def test_without_the_base_nothing_is_measured(losses):
    (found,) = OddRows().measure(Evidence({("best", "train"): losses["sound"]}))
    assert isinstance(found, NotMeasured)
