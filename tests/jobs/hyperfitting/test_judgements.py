"""Blind pairs come back with the win rate that the judge had."""

import json

import pytest

from heldout.core.errors import UserError
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.jobs.hyperfitting.judgements import KEY, export_judgements, import_judgements

NUM = 20
PAIR = ("hyperfitted_greedy", "base_greedy")


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run", Recipe())
    run.path("texts").mkdir()
    run.write_json(
        "contexts.json",
        {
            "prompts": [[1]] * NUM,
            "references": [[2]] * NUM,
            "groups": [f"g{n}" for n in range(NUM)],
            "row_index": list(range(NUM)),
            "prompt_texts": [f"context {n}" for n in range(NUM)],
            "reference_texts": [f"by people {n}" for n in range(NUM)],
        },
    )
    for condition, word in zip(PAIR, ("red", "blue"), strict=True):
        run.write_json(f"texts/{condition}.json", {"texts": [f"{word} {n}" for n in range(NUM)]})
    return run


def answered(run, judge, pairs=(PAIR,), **options):
    """Export, let ``judge(entry)`` answer every question, import."""
    path = run.path("judgements.jsonl")
    export_judgements(run, path, pairs, **options)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps({**entry, "answer": judge(entry)}) for entry in entries]
    path.write_text("\n".join(lines))
    (found, *_) = import_judgements(run, path)
    return {each.name.split("_hyper")[0]: each for each in found.measurements}, entries


def likes_red(entry, up_to=NUM):
    """Prefers red text for the first contexts, blue for the others, wherever it stands."""
    wanted = "red" if int(entry["context"].split()[1]) < up_to else "blue"
    return "A" if entry["A"].startswith(wanted) else "B"


def test_a_judge_of_known_taste(run):
    found, entries = answered(run, lambda entry: likes_red(entry, up_to=15))
    assert len(entries) == 2 * NUM
    assert found["win_rate"].value == pytest.approx(15 / NUM)
    assert found["win_rate"].interval.low > 0.5
    assert found["win_rate"].num_units == NUM
    assert found["consistency"].value == 1


def test_a_judge_of_places_is_no_judge(run):
    found, _ = answered(run, lambda entry: "A")
    assert found["win_rate"].value == 0.5
    assert found["consistency"].value == 0
    assert found["consistency"].interval.high < 0.2


def test_ties_and_disagreement_count_half(run):
    def judge(entry):
        number = int(entry["context"].split()[1])
        return "tie" if number < 10 else likes_red(entry)

    found, _ = answered(run, judge)
    assert found["win_rate"].value == pytest.approx(0.75)
    assert found["consistency"].value == 1


def test_questions_do_not_tell_the_condition(run):
    path = run.path("judgements.jsonl")
    export_judgements(run, path, [PAIR])
    assert not any(condition in path.read_text() for condition in PAIR)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    by_context = {}
    for entry in entries:
        by_context.setdefault(entry["context"], []).append((entry["A"], entry["B"]))
    assert all(first == second[::-1] for first, second in by_context.values())
    assert len({entry["A"].split()[0] for entry in entries[:10]}) == 2, "not one after another"


def test_one_answer_of_two_is_no_judgement(run):
    path = run.path("judgements.jsonl")
    export_judgements(run, path, [PAIR], most=4)
    seen = set()

    def first_only(entry):
        answer = "" if entry["context"] in seen else "A"
        seen.add(entry["context"])
        return answer

    found, _ = answered(run, first_only)
    assert all(isinstance(each, NotMeasured) for each in found.values())


def test_fewer_contexts_and_people(run):
    found, entries = answered(run, likes_red, pairs=[(PAIR[0], "human")], most=5)
    assert len(entries) == 10
    assert isinstance(found["win_rate"], Measurement)
    assert {entry["B"].split()[0] for entry in entries} == {"red", "by"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "nobody", "answer": "A"}', "line 1: id 'nobody' was not exported"),
        ("[]", "line 1 is no JSON object with id and answer"),
        ("{", "line 1 is no JSON object"),
        ('{"id": "KNOWN", "answer": "left"}', "answer must be A, B or tie, got 'left'"),
        ('{"id": "KNOWN", "answer": "A"}\n{"id": "KNOWN", "answer": "A"}', "line 2.*before"),
    ],
)
def test_bad_answers_are_one_line(run, tmp_path, line, expected):
    export_judgements(run, run.path("judgements.jsonl"), [PAIR])
    known = next(iter(run.read_json(KEY)["questions"]))
    path = tmp_path / "answers.jsonl"
    path.write_text(line.replace("KNOWN", known))
    with pytest.raises(UserError, match=expected):
        import_judgements(run, path)


def test_nothing_exported_and_unknown_conditions(run, tmp_path):
    with pytest.raises(UserError, match="export judgements first"):
        import_judgements(run, tmp_path / "answers.jsonl")
    with pytest.raises(UserError, match="no texts of 'nobody'"):
        export_judgements(run, tmp_path / "out.jsonl", [("nobody", "human")])
    assert not (tmp_path / "out.jsonl").exists()
