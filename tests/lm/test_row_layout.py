from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM

from heldout.lm.flat_trial import padding
from heldout.lm.layout import current_layout, padded_layout
from heldout.lm.scored_loss import scored_loss


def _batch(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask == 1, -100)}


def test_a_rows_key_and_length_do_not_depend_on_its_neighbors_or_on_packing():
    rows = [[3, 4, 5], [6, 7, 8, 9, 10], [11]]
    together = padded_layout(_batch(rows))
    assert together.lengths == (3, 5, 1)
    assert not together.flat
    assert together.keys == tuple(padded_layout(_batch([row])).keys[0] for row in rows)
    packed = padded_layout(
        {
            "input_ids": torch.tensor([[token for row in rows for token in row]]),
            "position_ids": torch.tensor([[place for row in rows for place in range(len(row))]]),
        }
    )
    assert packed.flat
    assert (packed.lengths, packed.keys) == (together.lengths, together.keys)


def test_a_mask_that_is_not_right_padding_counts_as_none():
    batch = _batch([[3, 4, 5]])
    batch["attention_mask"] = torch.tensor([[0, 1, 1]])
    assert padded_layout(batch).lengths == (3,)


def test_the_layout_is_that_of_the_newest_call(tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    batch = {**_batch([[3, 4, 5], [6, 7]]), "row_index": torch.tensor([8, 9])}
    with padding("on"):
        scored_loss(model, batch)
    assert current_layout() == padded_layout(batch)
    scored_loss(model, batch)
    assert current_layout() == replace(padded_layout(batch), flat=True)


def test_hundreds_of_equal_rows_have_keys_of_their_own_that_tensors_hold():
    keys = padded_layout(_batch([[3, 4, 5]] * 300)).keys
    assert len(set(keys)) == 300
    assert torch.tensor(keys).min() >= 0
    far = {**_batch([[3, 4, 5]] * 2), "row_index": torch.tensor([2**40, 2**40 + 1])}
    assert len(set(torch.tensor(padded_layout(far).keys).tolist())) == 2
