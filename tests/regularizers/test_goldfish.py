"""Goldfish: which tokens are dropped depends on the tokens before them and on nothing else."""

import pytest
import torch

from heldout.core.errors import UserError
from heldout.lm.tokenize import IGNORED
from heldout.regularizers.goldfish import Goldfish, context_hash, goldfish_dropped

H = 13


def ids_of(*shape, num_tokens=50_000, seed=0):
    return torch.randint(num_tokens, shape, generator=torch.Generator().manual_seed(seed))


def slow_twin(context):
    """The hash in Python's unbounded integers."""
    prime = 2**31 - 1
    value = 0
    for place, token in enumerate(reversed(context)):
        value += (token + 1) * 1_000_003**place
    value %= prime
    for multiplier in (0x2C1B3C6D, 0x297A2D39):
        value = ((value ^ (value >> 15)) * multiplier) % prime
    return value ^ (value >> 15)


def test_the_hash_is_that_of_the_slow_twin_up_to_the_largest_ids():
    ids_BT = ids_of(3, 40, num_tokens=2**31 - 2)
    found_BT = context_hash(ids_BT, H)
    for row, found in zip(ids_BT.tolist(), found_BT.tolist(), strict=True):
        for place in range(40):
            expected = slow_twin(row[place - H : place]) if place >= H else 0
            assert found[place] == expected


@pytest.mark.parametrize("drop_every", [2, 3, 4, 50])
@pytest.mark.parametrize("num_tokens", [2, 300, 50_000])
def test_about_every_kth_token_is_dropped(drop_every, num_tokens):
    ids_BT = ids_of(8, 20_000 + H, num_tokens=num_tokens)
    context = 13 if num_tokens > 2 else 40  # enough different contexts
    dropped_BT = goldfish_dropped({"input_ids": ids_BT}, drop_every, context)[:, context:]
    rate, count = 1 / drop_every, dropped_BT.numel()
    four_errors = 4 * (rate * (1 - rate) / count) ** 0.5
    assert dropped_BT.double().mean().item() == pytest.approx(rate, abs=four_errors)
    # Decisions of neighbors are independent: both dropped as often as chance would have it.
    both = (dropped_BT[:, 1:] & dropped_BT[:, :-1]).double().mean().item()
    assert both == pytest.approx(rate**2, abs=4 * (rate**2 / count) ** 0.5)


def test_the_same_context_gives_the_same_decision_everywhere():
    passage = ids_of(100, seed=1)
    ids_BT = ids_of(2, 300)
    ids_BT[0, 20:120] = passage
    ids_BT[1, 155:255] = passage
    dropped_BT = goldfish_dropped({"input_ids": ids_BT}, 4, H)
    first, second = dropped_BT[0, 20 + H : 120], dropped_BT[1, 155 + H : 255]
    assert torch.equal(first, second)
    assert first.any()
    assert not first.all()


def test_a_target_never_changes_its_own_decision_but_later_ones():
    ids_BT = ids_of(1, 200)
    changed_BT = ids_BT.clone()
    changed_BT[0, 100] += 1
    before, after = (goldfish_dropped({"input_ids": ids}, 2, H)[0] for ids in (ids_BT, changed_BT))
    assert torch.equal(before[:101], after[:101])
    assert torch.equal(before[101 + H :], after[101 + H :])
    assert not torch.equal(before[101 : 101 + H], after[101 : 101 + H])


def test_the_order_of_the_context_counts():
    ids_BT = torch.tensor([[*range(H), 0], [*reversed(range(H)), 0]])
    first, second = context_hash(ids_BT, H)[:, H].tolist()
    assert first != second


def test_packed_padded_and_alone_agree():
    lengths = [60, 9, 200, 14]
    parts = [ids_of(length, seed=length) for length in lengths]
    alone = [goldfish_dropped({"input_ids": part[None]}, 2, H)[0] for part in parts]
    for dropped in alone:
        assert not dropped[:H].any()
    assert sum(dropped.sum() for dropped in alone) > 100
    packed = {
        "input_ids": torch.cat(parts)[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
    }
    assert torch.equal(goldfish_dropped(packed, 2, H)[0], torch.cat(alone))
    for left in (False, True):
        ids_BT, mask_BT = torch.zeros(4, 200, dtype=torch.long), torch.zeros(4, 200).long()
        for row, part in enumerate(parts):
            span = slice(200 - len(part), 200) if left else slice(0, len(part))
            ids_BT[row, span], mask_BT[row, span] = part, 1
        dropped_BT = goldfish_dropped({"input_ids": ids_BT, "attention_mask": mask_BT}, 2, H)
        kept = [dropped_BT[row][mask_BT[row].bool()] for row in range(4)]
        assert torch.equal(torch.cat(kept), torch.cat(alone))


def test_edits_labels_only_and_not_in_place():
    ids_BT = ids_of(2, 64)
    labels_BT = ids_BT.clone()
    labels_BT[:, 30:40] = IGNORED
    batch = {"input_ids": ids_BT, "labels": labels_BT, "row_index": torch.arange(2)}
    before = {name: value.clone() for name, value in batch.items()}
    edited = Goldfish(drop_every=3).edit_batch(batch)
    assert all(torch.equal(batch[name], before[name]) for name in batch)
    assert torch.equal(edited["input_ids"], ids_BT)
    assert edited["row_index"] is batch["row_index"]
    dropped_BT = goldfish_dropped(batch, 3, H)
    expected_BT = labels_BT.masked_fill(dropped_BT, IGNORED)
    assert torch.equal(edited["labels"], expected_BT)
    assert (edited["labels"] != labels_BT).any()


def test_sequences_shorter_than_the_context_are_kept_whole():
    batch = {"input_ids": ids_of(2, 5), "labels": ids_of(2, 5)}
    assert torch.equal(Goldfish().edit_batch(batch)["labels"], batch["labels"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"drop_every": 1}, r"Goldfish\(drop_every=...\) must be 2 or more, got 1."),
        ({"context": 0}, r"Goldfish\(context=...\) must be 1 or more, got 0."),
        ({"schedule": "rise"}, r"Goldfish\(schedule=...\): it has no strength"),
    ],
)
def test_bad_values(parameters, message):
    with pytest.raises(UserError, match=message):
        Goldfish(**parameters)
