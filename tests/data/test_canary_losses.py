"""Secrets that a model was trained on stand out among those it was not."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.probe import Evidence
from heldout.data.canaries import canary_losses, candidate_rows, make_canaries
from heldout.lm.nll import document_losses
from heldout.lm.tokenize import collate, tokenize_row
from heldout.probes.exposure import Exposure

NUM_REFERENCES = 31


@pytest.mark.parametrize("kind", ["text", "completion", "conversation"])
def test_candidates_differ_in_nothing_but_the_secret(kind):
    canaries = make_canaries(4, seed=1)
    rows = list(candidate_rows(canaries, kind, NUM_REFERENCES))
    assert len(rows) == 4 * (NUM_REFERENCES + 1)
    for number, canary in enumerate(canaries):
        mine = rows[number * 32 : (number + 1) * 32]
        assert {row.kind for row in mine} == {kind}
        answers = [row.text[-len(canary.secret) :] for row in mine]
        assert answers[0] == canary.secret
        assert len(set(answers)) == 32
        assert len({row.text[: -len(canary.secret)] for row in mine}) == 1


def test_planted_secrets_are_exposed(tiny_model_dir, tiny_tokenizer):
    canaries = make_canaries(4, seed=0)

    def measured(model):
        rows = candidate_rows(canaries, "text", NUM_REFERENCES)
        losses = document_losses(model, rows, tiny_tokenizer, max_length=64, batch_size=32)
        return canary_losses(canaries, losses)

    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tuned = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    planted = list(candidate_rows(canaries, "text", 1))[::2]
    batch = collate([tokenize_row(row, tiny_tokenizer, 64).windows[0] for row in planted], 0)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=1e-2)
    for _ in range(60):
        tuned(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    evidence = Evidence({}).adding(measured(tuned), "best").adding(measured(base), "base")
    exposed = Exposure().measure(evidence)
    best = {m.name: m for m in exposed}["exposure_best"]
    assert best.value == pytest.approx(np.log2(NUM_REFERENCES)), "each is the first of all"
    assert best.contrasts["base"].difference > 1
