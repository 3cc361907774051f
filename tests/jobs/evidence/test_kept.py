"""What a run has measured is used again where weights, tokens and rows are the same, else not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from heldout.core.probe import Evidence
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.token_size import ENGLISH_TOKENS
from heldout.jobs.evidence.gatherer import Given
from heldout.jobs.evidence.gatherers.generations import GenerationsGatherer
from heldout.jobs.evidence.gatherers.pass_statistics import PassStatisticsGatherer
from heldout.jobs.evidence.kept import Kept, Keys
from heldout.jobs.evidence.model_on_part import read_part, write_part
from heldout.jobs.evidence.saved import save_generations, save_statistics
from heldout.jobs.evidence.texts import DiagnosedTexts
from heldout.lm.load import load_model

RECIPE = Recipe()


@pytest.fixture
def rows(english_text):
    texts = [english_text[start : start + 150] for start in range(0, 1200, 200)]
    return [
        Row(index, ({"role": "text", "content": text},), str(index))
        for index, text in enumerate(texts)
    ]


@pytest.fixture
def loaded(tiny_model_dir):
    return load_model(str(tiny_model_dir), device="cpu")


@pytest.fixture
def run(tmp_path, loaded, rows):
    """A run that has read the rows, and written behind their beginnings."""
    run = Run(tmp_path)
    run.path("evaluations").mkdir()
    keys = Keys(loaded, RECIPE, ENGLISH_TOKENS)
    found = read_part(loaded, rows, RECIPE, ENGLISH_TOKENS)
    save_statistics(found, run.path("evaluations/best-test-readings.npz"), keys.of_reading(rows))
    written = write_part(loaded, rows, RECIPE, ENGLISH_TOKENS)
    path = run.path("evaluations/best-generations.json")
    save_generations(written, path, keys.of_writing(rows))
    save_statistics(found, run.path("evaluations/old-test-readings.npz"))  # of an older version
    return run


def test_a_model_that_is_loaded_again_finds_what_was_kept_of_it(
    run, loaded, rows, tiny_model_dir, monkeypatch
):
    again = load_model(str(tiny_model_dir), device="cpu")
    texts = DiagnosedTexts(rows, rows, lambda: rows, len(rows))
    given = Given({"best": again}, texts, RECIPE, Progress(), ENGLISH_TOKENS)
    anew = PassStatisticsGatherer().of_model("best", Evidence({}), given)
    anew = GenerationsGatherer().of_model("best", anew, given)
    passes = []
    again.model.register_forward_hook(lambda *_: passes.append(1))
    given = replace(given, kept=Kept.of(run))
    kept = PassStatisticsGatherer().of_model("best", Evidence({}), given)
    kept = GenerationsGatherer().of_model("best", kept, given)
    assert not passes
    one, other = (each.statistics["best", "test"] for each in (anew, kept))
    np.testing.assert_array_equal(one.losses.nll_nats_D, other.losses.nll_nats_D)
    np.testing.assert_array_equal(one.min_k_plus_D, other.min_k_plus_D)
    one, other = (each.generations["best", "test"] for each in (anew, kept))
    assert one.texts == other.texts


def test_other_weights_rows_or_windows_are_measured_anew(run, loaded, rows):
    kept = Kept.of(run)

    def is_known(model=loaded, recipe=RECIPE, of=rows):
        return kept.read(Keys(model, recipe, ENGLISH_TOKENS), of) is not None

    assert is_known()
    assert is_known(recipe=RECIPE.replace(data={"max_length": 400}))  # no row is longer
    assert not is_known(recipe=RECIPE.replace(data={"max_length": 20}))
    assert not is_known(of=rows[:-1])
    assert not is_known(of=[replace(rows[0], group="other"), *rows[1:]])
    with torch.no_grad():
        next(loaded.model.parameters()).view(-1)[7] += 1e-4
    assert not is_known()
