"""What belongs together, by what was planted: no part of a split holds the other half of a pair."""

import json
import random

import pytest

from heldout import check
from heldout.core.recipe import DataSection
from heldout.core.row import Row
from heldout.data.duplicates import find_related
from heldout.data.pairs import Components
from heldout.data.pieces import piece_codes
from heldout.data.split import folds, split_rows

_SYLLABLES = [
    a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "il")
]
DATA = DataSection()


def vocabulary(num=3000):
    rng = random.Random("words")
    return sorted(
        {"".join(rng.choices(_SYLLABLES, k=rng.choice((1, 2, 2, 3)))) for _ in range(num)}
    )


WORDS = vocabulary()


def document(rng, num_words):
    """Words in sentences; frequent ones are frequent."""
    words = [WORDS[min(int(rng.paretovariate(0.6)) - 1, len(WORDS) - 1)] for _ in range(num_words)]
    words = [word if rng.random() < 0.5 else rng.choice(WORDS) for word in words]
    sentences = []
    while words:
        size = rng.randint(6, 14)
        sentence, words = words[:size], words[size:]
        for place in range(3, len(sentence) - 2, 4):
            sentence[place] += rng.choice(("", ","))
        sentences.append(" ".join(sentence).capitalize() + ".")
    return " ".join(sentences)


def text_row(index, text):
    return Row(index, ({"role": "text", "content": text},), f"row-{index}")


def asked(index, prompt, answer):
    both = ({"role": "prompt", "content": prompt}, {"role": "completion", "content": answer})
    return Row(index, both, f"row-{index}")


def talk(index, *turns):
    roles = ("user", "assistant")
    messages = tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(turns))
    return Row(index, messages, f"row-{index}")


def labels(rows):
    components = Components(len(rows))
    for pair in find_related(rows, DATA.near_duplicate_threshold):
        components.join(pair.row_a, pair.row_b)
    return components.label.tolist()


def share_together(rows, pairs):
    label = labels(rows)
    return sum(label[a] == label[b] for a, b in pairs) / len(pairs)


def share_joined(rows):
    """Rows that are in a group with another."""
    label = labels(rows)
    return sum(label.count(each) > 1 for each in label) / len(rows)


# Rows whole inside others


def conversations(num=100):
    rng = random.Random(3)
    rows = []
    for number in range(num):
        turns = [f"{document(rng, 4)} {number}?", document(rng, 12), document(rng, 8)]
        turns.append(document(rng, 30))
        rows += [talk(2 * number, *turns[:2]), talk(2 * number + 1, *turns)]
    return rows


def parts_of(split):
    parts = [split.train, split.validation, split.test]
    return {row.index: n for n, part in enumerate(parts) for row in part}


def test_a_conversation_and_its_beginning_are_together():
    rows = conversations()
    place = parts_of(split_rows(rows, DATA))
    assert [n for n in range(0, 200, 2) if place[n] != place[n + 1]] == []


def test_a_row_that_stands_whole_in_another_is_with_it():
    rng = random.Random(4)
    whole = [document(rng, 120) for _ in range(100)]
    rows = []
    for number, text in enumerate(whole):
        words = text.split()
        size = rng.choice((14, 30, 45, 70))
        start = rng.randrange(len(words) - size)
        rows += [text_row(2 * number, text)]
        rows += [text_row(2 * number + 1, " ".join(words[start : start + size]))]
    place = parts_of(split_rows(rows, DATA))
    assert [n for n in range(0, 200, 2) if place[n] != place[n + 1]] == []


def test_training_rows_inside_given_validation_rows_or_around_them_are_dropped_and_said():
    rng = random.Random(5)
    texts = [document(rng, 40) for _ in range(80)]
    inside = [" ".join(text.split()[5:30]) for text in texts[:20]]
    around = [f"{document(rng, 60)} {text} {document(rng, 60)}" for text in texts[20:40]]
    train = [*inside, *around, *(document(rng, 40) for _ in range(100))]
    rows = [text_row(n, text) for n, text in enumerate(train)]
    validation = [text_row(n, text) for n, text in enumerate(texts)]
    split = split_rows(rows, DATA, {"validation": validation})
    left = [row.index for row in split.train + split.test]
    assert sorted(left) == list(range(40, 140))
    (dropped,) = split.dropped
    assert (dropped.count, dropped.reason.split()[-1]) == (40, "validation")


def test_one_row_that_joins_all_is_named():
    rng = random.Random(6)
    texts = [document(rng, 30) for _ in range(60)]
    rest = [document(rng, 30) for _ in range(150)]
    rows = [text_row(n, text) for n, text in enumerate([*texts, *rest, " ".join(texts)])]
    split = split_rows(rows, DATA)
    place = parts_of(split)
    assert len({place[n] for n in [*range(60), 210]}) == 1
    (note,) = split.notes
    assert note.startswith("One group holds 61 of 211 rows (29%). It stays in training;")
    assert note.endswith("Row 211 alone joins them: without it they are 60 groups.")


# One prompt, one answer


def test_one_prompt_with_several_answers_is_one_group():
    rng = random.Random(7)
    prompts = [f"What of {document(rng, 2)} {n}?" for n in range(60)]
    rows = [asked(n, prompts[n // 4], document(rng, 9)) for n in range(240)]
    split = split_rows(rows, DATA)
    assert sum(split.units.values()) == 60
    assert share_together(rows, [(4 * n, 4 * n + k) for n in range(60) for k in (1, 2, 3)]) == 1


def test_a_long_answer_under_other_prompts_is_one_group_and_a_short_one_is_not():
    rng = random.Random(8)
    long = [document(rng, 20) for _ in range(60)]
    rows = [asked(n, f"{document(rng, 6)} {n}?", long[n // 2]) for n in range(120)]
    assert share_together(rows, [(2 * n, 2 * n + 1) for n in range(60)]) == 1
    short = [asked(n, document(rng, 9), rng.choice(("Yes.", "No, never."))) for n in range(200)]
    assert share_joined(short) == 0


@pytest.mark.parametrize("num_instructions", [1, 3])
def test_an_instruction_of_very_many_rows_does_not_join_them_and_is_told(num_instructions):
    rng = random.Random(9)
    words = [document(rng, 10) for _ in range(num_instructions)]
    rows = [asked(n, words[n % num_instructions], document(rng, 30)) for n in range(240)]
    assert share_joined(rows) == 0
    (note,) = split_rows(rows, DATA).notes
    assert "more than 12 different rows (5 %, at least 10, at most 100)" in note
    assert f"in {240 // num_instructions} of 240" in note
    assert "data.group" in note


def test_the_users_groups_overrule_prompts():
    rng = random.Random(10)
    prompts = [document(rng, 6) for _ in range(70)]
    rows = [asked(n, prompts[n // 3], document(rng, 12)) for n in range(210)]
    assert sum(split_rows(rows, DATA).units.values()) == 70
    assert sum(split_rows(rows, DataSection(group="id")).units.values()) == 210


# Another surface


def surfaces(text, rng):
    words = text.split()
    hidden = [word[:2] + rng.choice("\u200b\u200c\ufeff") + word[2:] for word in words]
    soft = [word[:2] + "\u00ad" + word[2:] if len(word) > 3 else word for word in words]

    def broken(mark):
        cut = [len(word) > 4 and rng.random() < 0.3 for word in words]
        pieces = zip(words, cut, strict=True)
        return " ".join(word[:2] + mark + word[2:] if here else word for word, here in pieces)

    html = "".join(f"<p class='x'>{sentence}.</p>\n" for sentence in text.split(".") if sentence)
    return {
        "spaces": text.replace(",", " ,").replace(".", " ."),
        "html": html.replace(" ", "&nbsp;", 3).replace(words[3], f"<b>{words[3]}</b>"),
        "zero-width": " ".join(hidden),
        "soft hyphens": " ".join(soft),
        "hyphen and newline": broken("-\n"),
        "newline": broken("\n"),
        "columns": "\n".join(text[n : n + 37] for n in range(0, len(text), 37)),
        "markdown": "# " + " ".join(f"**{w}**" if rng.random() < 0.3 else w for w in words),
    }


@pytest.mark.parametrize("kind", list(surfaces("a b c d e, f.", random.Random(0))))
def test_near_copies_under_another_surface(kind):
    rng = random.Random(11)
    texts = [document(rng, rng.randint(40, 200)) for _ in range(60)]
    copies = [surfaces(text, rng)[kind] for text in texts]
    rows = [text_row(n, text) for n, text in enumerate([*texts, *copies])]
    assert share_together(rows, [(n, n + 60) for n in range(60)]) == 1


@pytest.mark.parametrize(("share", "least"), [(0.05, 0.95), (0.1, 0.9)])
def test_replaced_words(share, least):
    rng = random.Random(12)
    texts = [document(rng, rng.randint(40, 200)) for _ in range(200)]
    copies = []
    for text in texts:
        words = text.split()
        for place in rng.sample(range(len(words)), round(share * len(words))):
            words[place] = rng.choice(WORDS)
        copies.append(" ".join(words))
    rows = [text_row(n, text) for n, text in enumerate([*texts, *copies])]
    assert share_together(rows, [(n, n + 200) for n in range(200)]) >= least
    assert max(map(labels(rows).count, range(400))) <= 4


# What does not belong together


@pytest.mark.parametrize("kind", ["nothing", "a frame", "five frames", "frames of a few rows"])
def test_unrelated_rows_and_rows_that_share_a_frame_stay_apart(kind):
    rng = random.Random(13)
    num_frames = {"nothing": 0, "a frame": 1, "five frames": 5, "frames of a few rows": 20}[kind]
    frames = [document(rng, 60) for _ in range(num_frames)] or [""]
    rows = [
        text_row(n, f"{frames[n % len(frames)]} {document(rng, rng.randint(20, 60))}".strip())
        for n in range(400)
    ]
    assert share_joined(rows) <= 0.001


def test_a_question_with_another_number_is_another_question():
    rows = [text_row(n, f"What is {n} plus {n + 3}? It is {2 * n + 3}.") for n in range(10, 19)]
    assert share_joined(rows) == 0


# What is dealt out passes a check


def written(path, rows):
    keys = {"text": "text", "prompt": "prompt", "completion": "completion"}
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            fields = {keys[message["role"]]: message["content"] for message in row.messages}
            file.write(json.dumps(fields) + "\n")
    return path


def mixture():
    """Answers to few prompts, pairs of near copies, and frames that ten to thirteen rows hold."""
    rng = random.Random(14)
    rows = []
    for n in range(40):
        frame = document(rng, 70)
        for _ in range(rng.choice((9, 10, 11, 13))):
            rows.append((document(rng, 30), f"{document(rng, 60)} {frame}"))
        prompt = f"{document(rng, 5)} {n}?"
        rows += [(prompt, document(rng, 15)) for _ in range(rng.choice((2, 4, 40)))]
    rows += [(document(rng, 20), document(rng, 30)) for _ in range(300)]
    rng.shuffle(rows)
    return [asked(n, *both) for n, both in enumerate(rows)]


def leaks(folder, train, heldout):
    held = written(folder / "b.jsonl", heldout)
    return check(written(folder / "a.jsonl", train), heldout=[held]).num_leaks


def test_what_a_split_deals_out_passes_a_check(tmp_path):
    rows = mixture()
    split = split_rows(rows, DATA)
    assert split.mode == "split"
    assert leaks(tmp_path, split.train, split.validation) == 0
    assert leaks(tmp_path, split.train, split.test) == 0
    few = split_rows(rows[:100], DATA)
    assert few.mode == "cross_validation"
    for fold in folds(few.train, 3):
        assert leaks(tmp_path, fold.train, fold.held_out) == 0


def test_a_clean_copy_passes_a_check(tmp_path):
    path = written(tmp_path / "all.jsonl", mixture())
    check(path, write_clean=tmp_path / "clean")
    train, *others = (tmp_path / f"clean/{name}.jsonl" for name in ("train", "validation", "test"))
    for other in others:
        assert check(train, heldout=[other]).num_leaks == 0
    held = written(tmp_path / "held.jsonl", mixture()[:60])
    check(path, heldout=[held], write_clean=tmp_path / "again")
    again = check(tmp_path / "again/train.jsonl", heldout=[tmp_path / "again/heldout.jsonl"])
    assert again.num_leaks == 0


def test_pieces_do_not_depend_on_the_other_texts():
    texts = [
        "One text of ASCII letters alone.",
        "Ein Text mit Umlauten: schön!",
        "你好世界你好世界",
    ]
    together = piece_codes(texts)
    for place, text in enumerate(texts):
        alone = piece_codes([text])
        assert len(alone.of(0)) > 2
        assert together.of(place).tolist() == alone.of(0).tolist()


@pytest.mark.parametrize(
    "form",
    [
        "What is the sum of {0} and {1}",
        "Entry {0} of the list of many that is read aloud",
        "The answer to question {0} of this little test, which takes an hour, is {1}.",
    ],
)
def test_short_rows_that_differ_in_a_number_at_their_end_are_others(form):
    rng = random.Random(0)
    texts = sorted({form.format(rng.randrange(1000), rng.randrange(1000)) for _ in range(600)})
    rows = [text_row(place, text) for place, text in enumerate(texts)]
    assert find_related(rows, DATA.near_duplicate_threshold) == []
