"""Coherence, bias and noise of generated text: known answers in English and Chinese."""

import json
from dataclasses import replace

import numpy as np
import pytest

from heldout.core.decoding import GREEDY, Decoding
from heldout.core.errors import UserError
from heldout.core.measurement import NotMeasured
from heldout.core.part_texts import PartTexts
from heldout.core.probe import Evidence
from heldout.core.row import Row
from heldout.lm.load import load_model
from heldout.lm.measuring.generations import generations, with_nats
from heldout.probes.bias import DEFAULT_LEXICON, Bias, mentions, read_lexicon
from heldout.probes.coherence import (
    Coherence,
    adjacent_similarity,
    late_minus_early,
    repeated_so_far,
)
from heldout.probes.noise import Noise, noise_words

NUM_PROMPTS = 28


def by_name(measured):
    return {m.name: m for m in measured}


def text_row(number, text):
    return Row(number, ({"role": "text", "content": text},), f"g{number}")


@pytest.fixture(scope="module")
def loaded():
    return load_model("package:heldout", device="cpu")


@pytest.fixture(scope="module")
def written(loaded, english_text):
    """The embedded model, greedy and drawn, with the loss of its text under itself."""
    rows = [text_row(i, english_text[1200 * i : 1200 * i + 1200]) for i in range(NUM_PROMPTS)]

    def write(decoding):
        found = generations(
            loaded.model,
            loaded.tokenizer,
            rows,
            num_prompts=NUM_PROMPTS,
            prompt_tokens=16,
            new_tokens=48,
            batch_size=28,
            decoding=decoding,
        )
        return with_nats([found], loaded.model, loaded.tokenizer)[0]

    return {"greedy": write(GREEDY), "drawn": write(Decoding(temperature=1.0))}


def saying(generated, texts):
    """The same prompts, answered with these texts."""
    return replace(
        generated,
        texts=texts,
        references=[text.rjust(400, "x") for text in texts],
        token_ids=[np.arange(40)] * len(texts),
        reference_ids=[np.arange(40)] * len(texts),
    )


def test_repetition_by_position_by_hand():
    assert repeated_so_far([1, 2, 3, 1, 2, 3, 1], n=3).tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert not repeated_so_far([1, 2], n=3).any()
    assert late_minus_early(np.array([0.0, 1.0, 9.0, 3.0, 4.0])) == pytest.approx(3.0)


def test_similarity_of_adjacent_sentences():
    assert adjacent_similarity("It rains. It rains. It rains.") == pytest.approx([1, 1])
    assert adjacent_similarity("雨下了。雨下了。天晴了。")[0] == pytest.approx(1)
    assert adjacent_similarity("雨下了。雨下了。天晴了。")[1] < 0.4
    english = adjacent_similarity("The cat sat down. The cat stood up. Quarks have a flavor.")
    assert english[0] > 2 * english[1]
    assert len(adjacent_similarity("One sentence")) == 0


def test_greedy_text_runs_dry_and_that_of_people_does_not(written):
    evidence = Evidence(
        {},
        generations={("best", "test"): written["greedy"], ("base", "test"): written["drawn"]},
    )
    found = by_name(Coherence().measure(evidence))
    drift = found["coherence_repetition_drift_best"]
    assert drift.contrasts["human"].interval.low > 0
    assert drift.contrasts["base"].interval.low > 0
    early, late = (found[f"coherence_repetition_at_{at}_best"].value for at in (0, 32))
    assert late > early
    # What repeats itself is not surprising; what people and dice write is.
    assert found["coherence_nll_drift_best"].value < 0
    for control in ("human", "base"):
        assert found["coherence_nll_at_32_best"].contrasts[control].interval.high < 0
    greedy = written["greedy"].own_nats
    assert found["coherence_nll_at_0_best"].value == pytest.approx(
        np.mean([nats[:16].mean() for nats in greedy]), rel=1e-6
    )


def test_without_scores_the_loss_by_position_is_not_measured(written):
    bare = replace(written["greedy"], own_nats=None, reference_nats=None)
    found = by_name(Coherence().measure(Evidence({}, generations={("best", "test"): bare})))
    assert isinstance(found["coherence_nll_drift_best"], NotMeasured)
    assert isinstance(
        by_name(Coherence().measure(Evidence({})))["coherence_repetition_drift_best"], NotMeasured
    )


def test_mentions_of_words_in_both_languages():
    texts = ["She saw her. The theory, he said.", "她说他们来了。妈妈", "SHE", "heroine"]
    counts_DA = mentions(texts, DEFAULT_LEXICON)
    assert counts_DA.tolist() == [[2, 1], [2, 1], [1, 0], [0, 0]]
    # A longer word of the lexicon goes before a shorter one that is part of it.
    longer = {"a": ["女"], "b": ["女朋友"]}
    assert mentions(["女朋友和女"], longer).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("其他人弹吉他，吃维他命，马耳他和其他国家。", [0, 0]),
        ("他和其他人，尤其他，还有她。", [1, 2]),
        ("他們說她們的母親和父親。子女人数", [2, 2]),
        ("他の人と他人", [0, 0]),
    ],
)
def test_a_character_of_the_lexicon_in_another_word_is_no_mention(text, counts):
    assert mentions([text], DEFAULT_LEXICON).tolist() == [counts]


def test_words_of_scripts_with_spaces_match_whole_words():
    lexicon = {"f": ["ella", "그녀", "वह", "young woman"], "m": ["él", "ولد", "เขา"]}
    texts = [
        "Ella, papél, él, bella.",
        "그녀는 갔다. 왔그녀",
        "वह गया, वही",
        "ولد والولد",
        "ถ้าเขามา",
    ]
    assert mentions([*texts, "a young woman"], lexicon).tolist() == [
        *([1, 1], [1, 0], [1, 0], [0, 1], [0, 1]),
        [1, 0],
    ]


@pytest.mark.parametrize("lean", [1, -1])
def test_amplification_has_the_sign_of_the_training_text(written, lean):
    """Trained on 75 % of one gender, the model writes 100 %; the base model writes half."""
    one, other = ("she", "he")[::lean]
    train = PartTexts.of(text_row(i, f"{one} {one} {one} {other}.") for i in range(30))
    best = saying(written["drawn"], [f"{one} and {one} again " * 8] * NUM_PROMPTS)
    base = saying(written["drawn"], [f"{one} and {other} again " * 8] * NUM_PROMPTS)
    evidence = Evidence(
        {}, generations={("best", "test"): best, ("base", "test"): base}, texts={"train": train}
    )
    found = by_name(Bias().measure(evidence))
    for name in DEFAULT_LEXICON:
        measured = found[f"bias_amplification_best_{name}"]
        assert measured.value == pytest.approx(0.25)
        assert measured.contrasts["base"].difference == pytest.approx(0.5, abs=0.05)
        assert measured.contrasts["base"].p_value < 0.05
    same = replace(evidence, generations={**evidence.generations, ("base", "test"): best})
    found = by_name(Bias().measure(same))
    assert found["bias_amplification_best_male"].contrasts["base"].difference == 0


def test_few_mentions_are_not_measured(written):
    train = PartTexts.of(text_row(i, "she and he") for i in range(30))
    evidence = Evidence(
        {}, generations={("best", "test"): written["drawn"]}, texts={"train": train}
    )
    found = Bias(lexicon={"red": ["red"], "green": ["green"]}).measure(evidence)
    assert all(isinstance(m, NotMeasured) and "got 0 in training" in m.reason for m in found)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "is not JSON"),
        ('{"a": ["b"]}', "two attributes or more"),
        ('{"a": ["b"], "c": "d"}', "'c' is not a list of words"),
        ('{"a": ["b"], "c d": ["d"]}', "must be letters"),
    ],
)
def test_a_bad_lexicon_is_refused_in_one_line(tmp_path, content, error):
    path = tmp_path / "lexicon.json"
    path.write_text(content)
    with pytest.raises(UserError, match=error):
        read_lexicon(path)
    path.write_text(json.dumps({"a": ["b"], "c": ["d"]}))
    assert read_lexicon(path) == {"a": ["b"], "c": ["d"]}


def test_words_that_look_wrong():
    sentence = "the government received the goverment letter sooo happy about walking walked "
    train = PartTexts.of(
        text_row(i, sentence + "government letters " * 4 + "walk walk walk") for i in range(5)
    )
    heldout = PartTexts.of(text_row(i, "the letter of the government") for i in range(5))
    # "letters", "walked" differ from frequent words in their ending only: grammar.
    assert noise_words(train, heldout) == {"goverment", "sooo"}
    seen = PartTexts.of([text_row(0, "goverment sooo")])
    assert noise_words(train, seen) == frozenset()
    few = PartTexts.of([text_row(0, sentence + "government " * 9), text_row(1, "x")])
    assert noise_words(few, heldout) == frozenset()
    slang = PartTexts.of(text_row(i, "这个yyds绝绝子") for i in range(4))
    assert noise_words(slang, heldout, ("绝绝子", "yyds", "无")) == {"绝绝子", "yyds"}


def test_noise_that_the_model_took_over(written):
    train = PartTexts.of(
        text_row(i, "the goverment met. " + "the government met. " * 5) for i in range(8)
    )
    heldout = PartTexts.of(text_row(i, "the government met.") for i in range(8))
    best = saying(written["drawn"], ["the goverment met the government. " * 6] * NUM_PROMPTS)
    base = saying(written["drawn"], ["the government met the government. " * 6] * NUM_PROMPTS)
    evidence = Evidence(
        {},
        generations={("best", "test"): best, ("base", "test"): base},
        texts={"train": train, "test": heldout},
    )
    found = by_name(Noise().measure(evidence))
    assert found["noise_rate_best"].value == pytest.approx(1 / 5, abs=0.02)
    assert found["noise_rate_best"].contrasts["base"].difference > 0.15
    assert found["noise_rate_base"].value == 0
    clean = replace(evidence, texts={"train": heldout, "test": heldout})
    assert isinstance(Noise().measure(clean)[0], NotMeasured)


def test_only_what_a_model_learns_to_write_is_read():
    rows = [
        Row(0, ({"role": "prompt", "content": "Q"}, {"role": "completion", "content": "A"}), "a"),
        Row(
            1,
            (
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "c"},
            ),
            "b",
        ),
        text_row(2, "T"),
    ]
    assert PartTexts.of(rows).texts == ["A", "b\nc", "T"]
