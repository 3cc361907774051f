"""Every augmentation, on any Unicode: never raises, keeps roles and structure, is deterministic."""

import dataclasses
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heldout.core.augmentation import KeyFacts, Supplies, draw_of, rows_of_epoch
from heldout.core.discovery import build, entries_of
from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.lm.load import load_model

NAMES = [entry.name for entry in entries_of("augmentation")]
WORDS = [
    "the climate is mild and the farms produce rice. ",
    "Prices rose in 2019; the bank said so! ",
    "人们在海边生活，经济依赖渔业。",
    "今天很好！他说：“对。” ",
    "<mask:0> _ \n\n",
    "e\u0301 \u200f\u202e 🦊👩‍👩‍👧 ﷽ \x00\t ",
]
# Any Unicode, and text that the augmentations know something about.
TEXT = st.text(max_size=40) | st.lists(st.sampled_from(WORDS) | st.text(max_size=5)).map("".join)
ROWS = st.one_of(
    TEXT.map(lambda text: (("text", text),)),
    st.tuples(TEXT, TEXT).map(lambda two: (("prompt", two[0]), ("completion", two[1]))),
    st.tuples(TEXT, TEXT, TEXT, TEXT).map(
        lambda four: tuple(zip(("system", "user", "assistant", "user"), four, strict=True))
    ),
)
SLOW = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def as_rows(several):
    return [
        Row(
            index,
            tuple({"role": role, "content": content} for role, content in messages),
            f"group-{index % 2}",
            source="own",
        )
        for index, messages in enumerate(several)
    ]


def swapped(text):
    """A translator: it is its own inverse and never the identity on words of several letters."""
    return " ".join(word[::-1] for word in text.split(" "))


@pytest.fixture(scope="session")
def word_files(tmp_path_factory):
    """The four pairs of files in WordNet's format, and a thesaurus."""
    folder = tmp_path_factory.mktemp("words")
    data = [
        "00000001 00 n 02 climate 0 clime 0 000 | weather",
        "00000002 00 n 03 farm 0 ranch 0 Farm_House 0 000 | land",
        "00000003 00 n 02 bank 0 depository 1 000 | money",
    ]
    license = "  1 This is a license. \n"
    (folder / "data.noun").write_text(license + "".join(f"{line}  \n" for line in data))
    (folder / "index.noun").write_text(
        license
        + "".join(
            f"{word} n 1 1 @ 1 1 0000000{number}  \n"
            for number, word in enumerate(("climate", "farm", "bank"), 1)
        )
    )
    for part in ("verb", "adj", "adv"):
        (folder / f"data.{part}").write_text(license)
        (folder / f"index.{part}").write_text(license)
    return folder


@pytest.fixture(scope="session")
def supplies(tiny_model_dir):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    general = [
        Row(n, ({"role": "text", "content": f"General text {n}."},), f"g{n}", source="general")
        for n in range(7)
    ]
    return Supplies(lambda path: general, lambda: (loaded.model, loaded.tokenizer))


@pytest.fixture(scope="session")
def make(word_files, supplies):
    """Builds an augmentation that changes all it can, ready for use."""
    parameters = {
        "back_translation": {"there": swapped, "back": str.upper},
        "paraphrase": {"model": lambda request: request.partition("\n\n")[2][::-1]},
        "synonyms": {"wordnet": str(word_files)},
        "replay": {"data": "general.jsonl"},
        "second_domain": {"data": "general.jsonl"},
    }

    def build_one(name, **changes):
        strength = {"rate": 0.6} if name not in ("back_translation", "paraphrase") else {}
        fields = {
            item.name
            for item in dataclasses.fields(type(build("augmentation", name, {})))
            if item.init
        }
        wanted = {"probability": 1.0, "where": "both", **strength, **parameters.get(name, {})}
        wanted = {key: value for key, value in {**wanted, **changes}.items() if key in fields}
        found = build("augmentation", name, wanted)
        found.prepare(supplies)
        return found

    return build_one


@pytest.mark.parametrize("name", NAMES)
@SLOW
@given(several=st.lists(ROWS, max_size=4), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_keeps_roles_and_structure_and_follows_from_seed_row_and_epoch(
    name, several, seed, epoch, make, tiny_tokenizer
):
    rows, augmentation = as_rows(several), make(name)
    found = rows_of_epoch(rows, [augmentation], seed=seed, epoch=epoch)
    for row, variant in zip(rows, found, strict=False):
        assert [m["role"] for m in variant.messages] == [m["role"] for m in row.messages]
        for message, other in zip(row.messages, variant.messages, strict=True):
            assert set(other) == {"role", "content"}
            assert bool(other["content"].strip()) >= bool(message["content"].strip())
            assert message["role"] != "system" or other == message
            other["content"].encode()
        assert dataclasses.replace(variant, messages=row.messages) == row
    assert all(row.source == "general" for row in found[len(rows) :])
    assert len({row.index for row in found}) == len(found)
    # The same from another instance, and one by one in another order, as workers would make them.
    alone = [
        rows_of_epoch([row], [make(name)], seed=seed, epoch=epoch)[0] for row in reversed(rows)
    ]
    if augmentation.added is None and name != "contextual_words":  # batches change the last bit
        assert alone[::-1] == found
    assert rows_of_epoch(rows, [make(name)], seed=seed, epoch=epoch) == found
    if augmentation.inputs is not None:
        assert found == rows
        check_inputs(augmentation, several, seed, epoch, tiny_tokenizer)


def check_inputs(augmentation, several, seed, epoch, tokenizer):
    for place, messages in enumerate(several):
        ids = tokenizer("".join(content for _, content in messages)).input_ids
        open_places = list(range(0, len(ids), 2))
        first, again = (
            augmentation.inputs(
                ids, open_places, draw_of(augmentation, seed, epoch, place), tokenizer
            )
            for _ in range(2)
        )
        assert first == again
        assert len(first) == len(ids)
        assert first[1::2] == ids[1::2]
        assert all(0 <= token < len(tokenizer) for token in first)


@pytest.mark.parametrize("name", NAMES)
@SLOW
@given(several=st.lists(ROWS, max_size=3), seed=st.integers(0, 3))
def test_strength_or_probability_0_leaves_all_unchanged(name, several, seed, make):
    rows = as_rows(several)
    strength = type(make(name)).STRENGTH
    off = [make(name, **{strength: 0.0}), make(name, schedule="rise:0.5")]
    if name not in ("replay", "second_domain"):
        off.append(make(name, probability=0.0))
    for augmentation in off:
        assert augmentation.is_off
        assert rows_of_epoch(rows, [augmentation], seed=seed, epoch=0) == rows


@pytest.mark.parametrize("name", NAMES)
@SLOW
@given(several=st.lists(ROWS, min_size=1, max_size=2), seed=st.integers(0, 3))
def test_key_facts_stay(name, several, seed, make):
    rows, facts = as_rows(several), KeyFacts((r"\d+", "渔业", r"\bfarms\b", "(?i)CLIMATE"))
    found = rows_of_epoch(rows, [make(name)], seed=seed, epoch=0, facts=facts)
    for row, variant in zip(rows, found, strict=False):
        for message, other in zip(row.messages, variant.messages, strict=True):
            assert facts.kept(message["content"], other["content"])


@pytest.mark.parametrize("name", NAMES)
def test_changes_english_and_chinese_in_the_part_that_is_asked_for(name, make, tmp_path):
    thesaurus = tmp_path / "groups.txt"
    thesaurus.write_text("Aa01A01= 经济 财政\nAa01A02= 人们 众人\nAa01A03# 渔业 农业\n")
    english = "The climate is mild. The farms grow rice.\n\nPrices rose in 2019. The bank said so."
    chinese = "人们在海边生活，经济依赖渔业。今天很好！\n\n他说：“对。”明天再来。"
    augmentation = make(name)
    if augmentation.added is not None or augmentation.inputs is not None:
        return
    for text in (english, chinese):
        if name == "synonyms" and text == chinese:
            augmentation = make(name, thesaurus=str(thesaurus), wordnet="")
        if name == "contextual_words":
            continue  # a model of 400 tokens has no words
        messages = ({"role": "prompt", "content": text}, {"role": "completion", "content": text})
        row = Row(0, messages, "g")
        for where, changes in (("prompt", (1, 0)), ("answer", (0, 1)), ("both", (1, 1))):
            there = dataclasses.replace(augmentation, where=where)
            object.__setattr__(there, "_synonyms", getattr(augmentation, "_synonyms", {}))
            object.__setattr__(there, "_ask", getattr(augmentation, "_ask", []))
            changed = [
                any(
                    rows_of_epoch([row], [there], seed=seed, epoch=0)[0].messages[place]
                    != messages[place]
                    for seed in range(10)
                )
                for place in (0, 1)
            ]
            assert changed == [bool(one) for one in changes], (where, text)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_epoch_or_row_draws_anew(name, make):
    augmentation = make(name, probability=1.0)
    if augmentation.variants or name == "contextual_words":
        return
    draws = {
        draw_of(augmentation, seed, epoch, row).random()
        for seed in (0, 1)
        for epoch in (0, 1)
        for row in (0, 1)
    }
    assert len(draws) == 8
    assert draw_of(augmentation, 0, 0, 0).random() == draw_of(augmentation, 0, 0, 0).random()


@pytest.mark.parametrize("name", NAMES)
def test_bad_values_are_told_in_one_line(name):
    for key, value in (("probability", 1.5), ("where", "system"), ("schedule", "up")):
        with pytest.raises(UserError, match=rf"\({key}=\.\.\.\) must be"):
            build("augmentation", name, {key: value})
    plugin = type(build("augmentation", name, {}))
    if plugin.STRENGTH != "probability":
        with pytest.raises(UserError, match=rf"\({plugin.STRENGTH}=\.\.\.\) must be"):
            build("augmentation", name, {plugin.STRENGTH: -0.1})


def test_draws_are_pythons_own_and_the_same_everywhere():
    """A change of these numbers changes every augmented run."""
    assert Random("0 WordDropout 0 0").random() == pytest.approx(0.4260102154774589, abs=1e-15)
