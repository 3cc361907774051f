"""Probes of generated text: known answers, and real text of the embedded model."""

from dataclasses import replace

import numpy as np
import pytest

from heldout.core.decoding import GREEDY, Decoding
from heldout.core.equal_lengths import equal_lengths
from heldout.core.jackknife import jackknife_values
from heldout.core.measurement import NotMeasured
from heldout.core.probe import Evidence
from heldout.core.row import Row
from heldout.core.stats import difference_of_paired_ratios, ratio_estimate
from heldout.core.verbatim import Corpora
from heldout.lm.load import load_model
from heldout.lm.measuring.corpora import corpora
from heldout.lm.measuring.generations import generations
from heldout.probes.fragments import Fragments, covered_tokens, longest_match
from heldout.probes.repetition import (
    Repetition,
    compression_ratio,
    diversity,
    repeated_share,
    type_token_ratio,
)
from heldout.probes.templates import Templates, pair_similarity, self_bleu

NUM_PROMPTS = 20


def by_name(measured):
    return {m.name: m for m in measured}


@pytest.fixture(scope="module")
def rows(english_text):
    size = 1200
    texts = [english_text[start : start + size] for start in range(0, 60 * size, size)]
    return [Row(i, ({"role": "text", "content": text},), f"g{i}") for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def loaded():
    return load_model("package:heldout", device="cpu")


@pytest.fixture(scope="module")
def written(loaded, rows):
    """By the embedded model: greedy, greedy without a repeated 4-gram, drawn."""

    def write(decoding):
        return generations(
            loaded.model,
            loaded.tokenizer,
            rows[:NUM_PROMPTS],
            num_prompts=NUM_PROMPTS,
            prompt_tokens=16,
            new_tokens=48,
            batch_size=20,
            decoding=decoding,
        )

    return {
        "greedy": write(GREEDY),
        "unrepeated": write(Decoding(no_repeat_ngram_size=4)),
        "drawn": write(Decoding(temperature=1.0)),
    }


def evidence_of(best, base=None, searched=None):
    generated = {("best", "test"): best}
    if base is not None:
        generated["base", "test"] = base
    evidence = Evidence({}, generations=generated)
    return evidence if searched is None else evidence.adding(searched)


def test_figures_of_short_sequences_by_hand():
    assert repeated_share([1, 2, 1, 2, 1, 2], 2) == pytest.approx(1 - 2 / 5)
    assert repeated_share([1, 2, 3], 4) == 0
    assert repeated_share([7] * 100, 4) == pytest.approx(1 - 1 / 97)
    assert type_token_ratio([1, 1, 2, 3, 4, 5], 4) == 0.75
    assert diversity([1, 2, 3, 4, 5]) == 1
    assert diversity([1, 2, 1, 2, 1]) == pytest.approx(0.5 * (2 / 3) * 1)
    # Repetition compresses in any script; what compresses is the repetition, not the alphabet.
    once = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"
    assert compression_ratio(once * 8) > 4 * compression_ratio(once)


def test_self_bleu_equals_that_of_nltk():
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 6, rng.integers(9, 30)).tolist() for _ in range(12)]
    smoothing = SmoothingFunction(epsilon=0.1).method1
    expected = [
        sentence_bleu(texts[:i] + texts[i + 1 :], text, smoothing_function=smoothing)
        for i, text in enumerate(texts)
    ]
    np.testing.assert_allclose(self_bleu(texts), expected, rtol=1e-9)
    assert self_bleu([texts[0]] * 4).tolist() == pytest.approx([1.0] * 4)


def test_similarity_of_pairs_by_hand():
    similar = pair_similarity([[1, 2, 3, 4], [2, 3, 4, 5], [9, 9, 9, 9], [1, 2, 3, 4]])
    assert similar[0, 3] == 1
    assert similar[0, 1] == pytest.approx(1 / 3)  # 2 3 4 of 1 2 3, 2 3 4, 3 4 5
    assert similar[0, 2] == 0


def test_repetition_beside_base_and_human_text(written):
    found = by_name(Repetition().measure(evidence_of(written["greedy"], written["unrepeated"])))
    rep = found["seq_rep_4_best"]
    assert rep.value > 0.1  # a model of two million parameters loops when it is greedy
    assert found["seq_rep_4_base"].value == 0
    assert rep.contrasts["base"].difference == pytest.approx(rep.value)
    assert rep.contrasts["base"].interval.low > 0
    assert rep.contrasts["human"].interval.low > 0
    assert found["ttr_best"].contrasts["human"].interval.high < 0
    assert found["diversity_best"].contrasts["base"].interval.high < 0
    assert found["compression_ratio_best"].contrasts["human"].interval.low > 0
    assert found["rep_2_best"].value > found["rep_4_best"].value
    assert found["ended_best"].num_units == NUM_PROMPTS


def test_a_model_against_itself_differs_by_nothing(written):
    same = evidence_of(written["drawn"], written["drawn"])
    for probe in (Repetition(), Templates()):
        for measurement in probe.measure(same):
            if measurement.name.endswith("_best"):
                assert measurement.contrasts["base"].difference == pytest.approx(0, abs=1e-12)


def test_people_against_people_are_no_symptom(written):
    human = replace(
        written["greedy"],
        token_ids=written["greedy"].reference_ids,
        texts=written["greedy"].references,
    )
    for probe in (Repetition(), Templates()):
        for measurement in probe.measure(evidence_of(human)):
            contrast = measurement.contrasts["human"]
            assert contrast.interval.low <= 0 <= contrast.interval.high


def test_one_answer_to_every_prompt_is_a_template(written):
    drawn = written["drawn"]
    long = max(drawn.token_ids, key=len)
    same = replace(drawn, token_ids=[long] * len(drawn), texts=["x" * 99] * len(drawn))
    found = by_name(Templates().measure(evidence_of(same, drawn)))
    assert found["template_similarity_best"].value == pytest.approx(1)
    assert found["template_similarity_best"].contrasts["base"].interval.low > 0.5
    assert found["self_bleu_best"].value == pytest.approx(1)
    assert found["self_bleu_best"].contrasts["human"].interval.low > 0.3
    assert found["near_identical_best"].value == 1
    assert found["near_identical_base"].value == 0


def test_all_writers_are_cut_to_one_length(written):
    drawn = written["drawn"]
    short = replace(
        drawn,
        token_ids=[ids[: 9 + n] for n, ids in enumerate(drawn.token_ids)],
        texts=[text[: 20 + n] for n, text in enumerate(drawn.texts)],
    )
    beside = equal_lengths(evidence_of(short, written["greedy"]), "best")
    for n in range(len(beside)):
        lengths = {len(texts[n]) for texts in beside.ids.values()}
        assert lengths == {min(9 + n, len(written["greedy"].token_ids[n]), 48)}
        assert len({len(texts[n]) for texts in beside.texts.values()}) == 1
        assert written["greedy"].texts[n].startswith(beside.texts["base"][n])


def test_rows_are_matched_by_their_index_not_their_place(written):
    drawn, backward = written["drawn"], list(range(NUM_PROMPTS))[::-1]
    shuffled = replace(
        drawn,
        **{
            name: [getattr(drawn, name)[place] for place in backward]
            for name in ("prompts", "texts", "references", "token_ids", "reference_ids")
        },
        ended=drawn.ended[backward],
        groups=drawn.groups[backward],
        row_index=drawn.row_index[backward],
    )
    beside = equal_lengths(evidence_of(drawn, shuffled), "best")
    assert beside.texts["best"] == beside.texts["base"]


def test_twins_of_one_group_do_not_count(written):
    drawn = written["drawn"]
    paired = replace(
        drawn,
        token_ids=[drawn.token_ids[n // 2 * 2] for n in range(len(drawn))],
        groups=np.array([f"g{n // 2}" for n in range(len(drawn))]),
    )
    found = by_name(Templates().measure(evidence_of(paired)))
    assert found["near_identical_best"].value == 0
    assert found["template_similarity_best"].value < 0.1
    alone = replace(paired, groups=drawn.groups)
    assert by_name(Templates().measure(evidence_of(alone)))["near_identical_best"].value == 1


def test_matches_of_lengths_by_hand():
    lengths_T = np.array([0, 3, 2, 1, 0, 2, 3, 2, 1, 0])
    assert longest_match(lengths_T) == 3
    assert covered_tokens(lengths_T, 3) == 6
    assert covered_tokens(lengths_T, 4) == 0
    assert covered_tokens(np.array([2, 2, 2, 1]), 2) == 4
    assert longest_match(lengths_T[:0]) == 0


def test_fragments_of_training_text_are_found_and_held_out_ones_are_not(written, rows, loaded):
    # Training rows into which what the model writes has been pasted, as if it had learned it there.
    greedy = written["greedy"]
    pasted = [
        Row(i, ({"role": "text", "content": row.text[:300] + text + row.text[300:]},), row.group)
        for i, (row, text) in enumerate(zip(rows[20:40], greedy.texts, strict=True))
    ]
    probe = Fragments(least_tokens=8)
    searched = corpora(pasted, rows[:20], loaded.tokenizer)
    found = by_name(probe.measure(evidence_of(greedy, written["drawn"], searched)))
    longest, coverage = found["fragment_longest_best"], found["fragment_coverage_best"]
    assert longest.value > 25
    assert longest.contrasts["heldout"].interval.low > 10
    assert longest.contrasts["base"].interval.low > 10
    assert coverage.value > 0.6
    assert found["fragment_longest_base"].value < 10
    # Training text that has nothing of it is as far away as held-out text.
    apart = corpora(rows[20:40], rows[:20], loaded.tokenizer)
    found = by_name(probe.measure(evidence_of(greedy, written["drawn"], apart)))
    assert found["fragment_longest_best"].value < 10
    assert abs(found["fragment_longest_best"].contrasts["heldout"].difference) < 3


def test_the_document_that_is_continued_does_not_count_as_held_out(written, rows, loaded):
    greedy = written["greedy"]
    copied = replace(greedy, token_ids=greedy.reference_ids)
    searched = corpora(rows[20:40], rows[:20], loaded.tokenizer)
    found = by_name(Fragments().measure(evidence_of(copied, None, searched)))
    assert abs(found["fragment_longest_best"].contrasts["heldout"].difference) < 4
    same = Corpora.build(
        [(99, ids) for ids in greedy.reference_ids], [(98, ids) for ids in greedy.reference_ids]
    )
    found = by_name(Fragments().measure(evidence_of(copied, None, same)))
    assert found["fragment_longest_best"].value == 48
    assert found["fragment_longest_best"].contrasts["heldout"].difference == 0


def test_too_little_text_is_not_measured(written):
    greedy = written["greedy"]
    few = replace(greedy, token_ids=[ids[:4] for ids in greedy.token_ids])
    for probe in (Repetition(), Templates(), Fragments()):
        for evidence in (Evidence({}), evidence_of(few)):
            found = probe.measure(evidence)
            assert any(isinstance(m, NotMeasured) and m.reason for m in found)
            assert all(m.name == "ended_best" for m in found if not isinstance(m, NotMeasured))


def test_pseudo_values_of_a_mean_are_the_values():
    values = np.random.default_rng(0).normal(size=25)
    pseudo = jackknife_values(lambda keep: values[keep].mean(), np.arange(25))
    np.testing.assert_allclose(pseudo, values)


def test_student_intervals_cover():
    """Also where a tenth of the groups stands apart."""
    rng = np.random.default_rng(0)
    inside, widths = 0, []
    for _ in range(300):
        values = np.where(rng.random(40) < 0.1, 5.0, 45.0) + rng.normal(0, 1, 40)
        found = ratio_estimate(values, np.ones(40), np.arange(40))
        inside += found.interval.low <= 41 <= found.interval.high
        widths.append(found.interval.high - found.interval.low)
    assert 0.88 <= inside / 300 <= 0.98
    assert max(widths) < 20


def test_difference_of_paired_ratios_is_that_of_one_ratio_to_nothing():
    rng = np.random.default_rng(0)
    numerators, denominators = rng.normal(3, 1, 60), rng.integers(4, 9, 60)
    groups = np.arange(60) // 2
    alone = ratio_estimate(numerators, denominators, groups, signed=True)
    against = difference_of_paired_ratios(
        (numerators, denominators), (np.zeros(60), denominators), groups
    )
    assert against.value == pytest.approx(alone.value)
    assert against.interval.low == pytest.approx(alone.interval.low)
    same = difference_of_paired_ratios(
        (numerators, denominators), (numerators, denominators), groups
    )
    assert (same.value, same.p_value) == (0, 1)
