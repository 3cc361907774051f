import math
import random

import pytest

from heldout.core.measurement import NotMeasured
from heldout.core.probe import Evidence
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.jobs.arms import losses_of
from heldout.lm.load import load_model
from heldout.probes.odd_rows import OddRows


def rows(part, shuffled=0):
    draw = random.Random(0)
    found = []
    for place, entry in enumerate(question_answer_rows(45, 1, 45, 1)[part]):
        words = entry["completion"].split()
        if place < shuffled:
            draw.shuffle(words)
        answer = {"role": "completion", "content": " " + " ".join(words)}
        prompt = {"role": "prompt", "content": entry["prompt"]}
        found.append(Row(place, (prompt, answer), entry["group"]))
    return found


@pytest.fixture(scope="module")
def losses():
    loaded = load_model("package:heldout", device="cpu")
    parts = {"sound": rows("train"), "spoiled": rows("train", 30), "test": rows("test")}
    return {
        name: losses_of(loaded.model, loaded.tokenizer, part, Recipe())
        for name, part in parts.items()
    }


def excess(losses, part):
    evidence = Evidence({("base", "train"): losses[part], ("base", "test"): losses["test"]})
    (found,) = OddRows().measure(evidence)
    return found.contrasts["heldout"]


def test_sound_rows_are_no_odder_than_held_out_ones(losses):
    contrast = excess(losses, "sound")
    assert contrast.interval.low <= 0 <= contrast.interval.high


def test_rows_in_disorder_stand_out(losses):
    assert excess(losses, "spoiled").difference > excess(losses, "sound").difference + 0.05


def test_rows_against_themselves_are_as_odd_as_defined(losses):
    evidence = Evidence({("base", "train"): losses["test"], ("base", "test"): losses["test"]})
    (found,) = OddRows().measure(evidence)
    assert math.isclose(found.contrasts["heldout"].difference, 0, abs_tol=1e-12)
    assert 0.02 < found.value < 0.08


def test_without_the_base_nothing_is_measured(losses):
    (found,) = OddRows().measure(Evidence({("best", "train"): losses["sound"]}))
    assert isinstance(found, NotMeasured)
