"""Windows of variants: fresh each epoch, the same for any workers, processes and after a resume."""

import pytest
import torch

from heldout.augment.masking import Masking
from heldout.augment.replay import Replay
from heldout.augment.token_noise import TokenNoise
from heldout.augment.word_dropout import WordDropout
from heldout.core.augmentation import KeyFacts, Supplies
from heldout.core.row import Row
from heldout.training.variants import AugmentedWindows
from heldout.training.windows import WindowDataset

SENTENCE = "The import statement of 1991 finds a module and binds its name. "


def text_row(index, times=1):
    return Row(index, ({"role": "text", "content": SENTENCE * times},), f"g{index}")


def answer_row(index):
    messages = (
        {"role": "prompt", "content": SENTENCE},
        {"role": "completion", "content": SENTENCE},
    )
    return Row(index, messages, f"g{index}")


ROWS = [text_row(0), text_row(1, 3), text_row(2), text_row(3, 2)]


def windows_of(rows, tokenizer, augmentations, facts=(), max_length=48):
    return AugmentedWindows(
        rows, tokenizer, max_length, augmentations, seed=0, planned_epochs=4, facts=KeyFacts(facts)
    )


def items_of(windows):
    return [windows[place] for place in range(len(windows))]


def equal(a, b):
    a, b = (one if isinstance(one, list) else [one] for one in (a, b))
    return len(a) == len(b) and all(
        torch.equal(x["input_ids"], y["input_ids"])
        and torch.equal(x["labels"], y["labels"])
        and x["row_index"] == y["row_index"]
        for x, y in zip(a, b, strict=True)
    )


def all_equal(a, b):
    return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))


def test_without_augmentations_the_windows_are_the_plain_ones(tiny_tokenizer):
    plain = WindowDataset(ROWS, tiny_tokenizer, 48)
    same = windows_of(ROWS, tiny_tokenizer, [WordDropout(rate=0.0), Masking(probability=0.0)])
    for epoch in (0, 3):
        same.set_epoch(epoch)
        assert all_equal(items_of(same), items_of(plain))


def test_epochs_differ_and_come_again_the_same(tiny_tokenizer):
    augmentations = [WordDropout(rate=0.3), Masking(rate=0.3)]
    windows = windows_of(ROWS, tiny_tokenizer, augmentations)
    epochs = []
    for epoch in range(3):
        windows.set_epoch(epoch)
        epochs.append(items_of(windows))
    assert not all_equal(epochs[0], epochs[1])
    assert not all_equal(epochs[1], epochs[2])
    resumed = windows_of(ROWS, tiny_tokenizer, [WordDropout(rate=0.3), Masking(rate=0.3)])
    resumed.set_epoch(2)
    assert all_equal(items_of(resumed), epochs[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_reads_the_same(tiny_tokenizer, workers):
    windows = windows_of(ROWS, tiny_tokenizer, [WordDropout(rate=0.3), TokenNoise(rate=0.3)])
    windows.set_epoch(1)
    loader = torch.utils.data.DataLoader(
        windows, batch_size=2, num_workers=workers, collate_fn=windows.collate
    )
    batches = list(loader)
    expected = [windows.collate(items_of(windows)[n : n + 2]) for n in range(0, len(windows), 2)]
    for batch, other in zip(batches, expected, strict=True):
        assert all(torch.equal(batch[name], other[name]) for name in other)


def test_what_a_row_becomes_does_not_depend_on_other_rows(tiny_tokenizer):
    augmentations = [WordDropout(probability=1.0, rate=0.3), Masking(probability=1.0, rate=0.3)]
    whole = windows_of(ROWS, tiny_tokenizer, augmentations, max_length=32)
    alone = windows_of(ROWS[1:2], tiny_tokenizer, augmentations, max_length=32)
    of_row = [whole._window(p) for p in range(whole.num_windows) if whole.row_index[p] == 1]
    assert len(of_row) > 1
    assert all_equal(of_row, [alone._window(p) for p in range(alone.num_windows)])


def test_every_window_of_an_epoch_is_in_some_item_whatever_their_number(tiny_tokenizer):
    rows = [text_row(index, 1 + index % 3) for index in range(12)]
    windows = windows_of(rows, tiny_tokenizer, [WordDropout(rate=0.9)], max_length=16)
    more = set()
    for epoch in range(12):
        windows.set_epoch(epoch)
        more.add(windows.num_windows - len(windows))
        batch = windows.collate(items_of(windows))
        assert set(batch["row_index"].tolist()) == set(range(12))
        assert len(batch["input_ids"]) == max(windows.num_windows, len(windows))
    assert min(more) < 0 < max(more), "fewer and more windows than items are both to be seen"


@pytest.mark.parametrize("augmentation", [Masking, TokenNoise])
def test_what_is_to_be_predicted_stays_and_special_tokens_too(tiny_tokenizer, augmentation):
    plain = WindowDataset(ROWS, tiny_tokenizer, 48)
    noised = windows_of(ROWS, tiny_tokenizer, [augmentation(probability=1.0, rate=0.8)])
    special = set(tiny_tokenizer.all_special_ids)
    changed = 0
    for before, after in zip(items_of(plain), items_of(noised), strict=True):
        assert torch.equal(before["labels"], after["labels"])
        for old, new in zip(before["input_ids"].tolist(), after["input_ids"].tolist(), strict=True):
            changed += old != new
            assert old == new or old not in special
    assert changed > 20


@pytest.mark.parametrize(("where", "parts"), [("prompt", [0]), ("answer", [1]), ("both", [0, 1])])
def test_tokens_change_in_the_part_that_is_asked_for(tiny_tokenizer, where, parts):
    rows = [answer_row(0), answer_row(1)]
    plain = WindowDataset(rows, tiny_tokenizer, 128)
    noised = windows_of(
        rows, tiny_tokenizer, [Masking(probability=1.0, rate=1.0, where=where)], max_length=128
    )
    for before, after in zip(items_of(plain), items_of(noised), strict=True):
        scored = before["labels"] != -100
        differs = before["input_ids"] != after["input_ids"]
        assert [bool(differs[~scored].any()), bool(differs[scored].any())] == [
            part in parts for part in (0, 1)
        ]


def test_key_facts_are_read_as_they_are(tiny_tokenizer):
    facts, blank = (r"\d+", "module"), [Masking(probability=1.0, rate=1.0)]
    windows = windows_of(ROWS, tiny_tokenizer, blank, facts=facts, max_length=128)
    for item in items_of(windows):
        text = tiny_tokenizer.decode(item["input_ids"])
        assert "1991" in text
        assert "module" in text
        assert "import" not in text


def test_schedules_follow_the_planned_epochs(tiny_tokenizer):
    windows = windows_of(ROWS, tiny_tokenizer, [WordDropout(rate=0.5, schedule="rise:0.5")])
    strengths = []
    for epoch in range(5):
        windows.set_epoch(epoch)
        strengths.append(windows.augmentations[0].now("rate"))
    assert strengths == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.5])


def test_added_rows_keep_their_source_and_are_new_each_epoch(tiny_tokenizer):
    general = [
        Row(n, ({"role": "text", "content": f"General text number {n}."},), f"x{n}", source="news")
        for n in range(20)
    ]
    replay = Replay(data="news.jsonl", share=0.5)
    replay.prepare(Supplies(lambda path: general, lambda: None))
    windows = windows_of(ROWS, tiny_tokenizer, [replay], max_length=128)
    assert windows.sources == ["", "news"]
    seen = []
    for epoch in range(3):
        windows.set_epoch(epoch)
        batch = windows.collate(items_of(windows))
        assert batch["source_index"].tolist().count(1) == len(ROWS)
        seen.append(tiny_tokenizer.batch_decode(batch["input_ids"]))
    assert seen[0] != seen[1] != seen[2]
