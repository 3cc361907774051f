"""A text that one pass has read is not read again for its losses."""

import numpy as np

from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.token_size import ENGLISH_TOKENS
from heldout.jobs.evidence.measure import _of_all
from heldout.jobs.evidence.model_on_part import read_part
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.parts import sample_rows
from heldout.lm.load import load_model


def test_losses_of_all_rows_take_those_of_the_sample_from_its_pass(tiny_model_dir, english_text):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    recipe = Recipe()
    rows = [
        Row(index, ({"role": "text", "content": english_text[index * 90 :][:40]},), str(index % 7))
        for index in (9, *range(8), 12, 8)  # in no order
    ]
    sampled = sample_rows(rows, 6, 0)
    found = read_part(loaded, sampled, recipe, ENGLISH_TOKENS)
    read = []
    loaded.model.register_forward_hook(
        lambda module, inputs, kwargs, output: read.append(rows_of(kwargs)),
        with_kwargs=True,
    )

    def rows_of(inputs):
        """Rows of a batch, padded or one behind the other."""
        flat = inputs.get("position_ids")
        return len(inputs["input_ids"]) if flat is None else int((flat == 0).sum())

    losses = _of_all(rows, found, loaded, recipe)
    assert sum(read) == len(rows) - len(sampled)
    whole = losses_of(loaded.model, loaded.tokenizer, rows, recipe)
    np.testing.assert_allclose(losses.nll_nats_D, whole.nll_nats_D, rtol=1e-5)
    assert losses.num_tokens_D.tolist() == whole.num_tokens_D.tolist()
    assert losses.groups_D.tolist() == whole.groups_D.tolist()
