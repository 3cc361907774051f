"""Answers of a run's kept model and its base, and what of them training rows say too."""

import io
import json
import sys
from importlib import resources

import pytest
from jsonschema import Draft202012Validator

import finished_run
import heldout
from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.lm.generate import continuations
from heldout.lm.load import load_model
from heldout.lm.tokenize import prompt_ids

PROMPT = "The people of the United States"
TOKENS = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of plain texts; its second training row holds what the kept model writes after PROMPT."""
    folder = tmp_path_factory.mktemp("runs")
    first = finished_run.finished_run(folder / "first", kind="text")
    (said,) = heldout.answers(first, PROMPT, max_new_tokens=TOKENS)
    rows = [finished_run.ROWS["train"], f"{PROMPT}{said.best.text}"]
    return finished_run.finished_run(folder / "run", kind="text", rows=rows)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    return finished_run.finished_run(tmp_path_factory.mktemp("runs") / "chat")


def greedy(target, ids_of):
    loaded = load_model(str(target), device="cpu")
    return continuations(loaded.model, loaded.tokenizer, [ids_of(loaded.tokenizer)], TOKENS)[0]


def test_both_answer_as_they_do_alone(run):
    (found,) = heldout.answers(run.folder, PROMPT, max_new_tokens=TOKENS)

    def ids(tokenizer):
        return tokenizer(PROMPT).input_ids

    assert found.best.text == greedy(run.best, ids)
    assert found.base.text == greedy(finished_run.MODEL, ids)
    assert found.best.text != found.base.text
    assert 0 < found.best.num_tokens <= TOKENS
    assert found.best.seconds > 0


def test_what_stands_in_a_training_row_is_marked_with_the_row(run):
    (found,) = heldout.answers(run, PROMPT, max_new_tokens=TOKENS)
    assert found.best.copied is not None
    assert found.best.copied.row == 8  # the second one; the first has index 7
    assert found.best.copied.num_tokens >= 12
    assert found.best.copied_text in found.best.text
    assert found.best.copied_text.strip()
    (other,) = heldout.answers(run, "Whereas the committee", max_new_tokens=8)
    assert other.best.copied is None


def test_a_prompt_of_conversations_goes_through_the_template(chat):
    asked = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"})
    (found,) = heldout.answers(chat, "Who?", system="Be brief.", max_new_tokens=TOKENS)
    assert found.best.text == greedy(chat.best, lambda t: prompt_ids(Row(0, asked, ""), t)[0])


def test_drawn_answers_repeat_with_the_seed(run):
    def drawn(seed):
        found = heldout.answers(run, [PROMPT], temperature=1.0, seed=seed, max_new_tokens=TOKENS)
        return next(found).best.text

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_prompts_are_asked_for_one_by_one(run):
    asked = []

    def prompts():
        for each in ("One", "Two"):
            asked.append(each)
            yield each

    found = heldout.answers(run, prompts(), max_new_tokens=2)
    assert asked == []
    assert next(found).prompt == "One"
    assert asked == ["One"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"system": "Be brief."}, "system goes with a model that was trained on conversations"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, got 0"),
        ({"max_new_tokens": 512}, "max_new_tokens must be under 512, what this model can read"),
        ({"temperature": -1}, "temperature must be 0"),
        ({"temperature": float("inf")}, "between 0.0001 and 10000, got inf"),
        ({"temperature": 1e-300}, "between 0.0001 and 10000, got 1e-300"),
        ({"seed": 2**64}, "seed must be 0 or more and under 2 ** 63"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_answer(run, settings, words):
    from heldout.core.spelling import in_python

    with pytest.raises(UserError) as error:
        heldout.answers(run, PROMPT, **settings)
    assert words in in_python(str(error.value))


def test_a_long_prompt_is_said_to_be_cut(run):
    (found,) = heldout.answers(run, "a b " * 600, max_new_tokens=2)
    assert found.is_cut


def said(monkeypatch, capsys, *words, stdin=None, columns=80):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["heldout", "try", *map(str, words)])
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return capsys.readouterr().out


def test_narrow_terminals_have_one_below_the_other(run, monkeypatch, capsys):
    words = [run.folder, PROMPT, "--max-new-tokens", TOKENS]
    lines = [line.strip() for line in said(monkeypatch, capsys, *words).splitlines()]
    assert lines.index("Base model") < lines.index("Kept (best)")
    assert "word for word in training row 8" in " ".join(lines)
    wide = said(monkeypatch, capsys, *words, columns=160).splitlines()
    assert any("Base model" in line and "Kept (best)" in line for line in wide)


def test_piped_lines_are_answered_in_order(run, monkeypatch, capsys):
    out = said(monkeypatch, capsys, run.folder, "--max-new-tokens", 2, stdin="One\n\nTwo\n")
    assert out.index("> One") < out.index("> Two")
    out = said(monkeypatch, capsys, run.folder, "--max-new-tokens", 2, "--json", stdin="One\nTwo\n")
    entry = json.loads(out)
    path = resources.files("heldout.core") / "schemas" / "try.json"
    Draft202012Validator(json.loads(path.read_text(encoding="utf-8"))).validate(entry)
    assert [each["prompt"] for each in entry["answers"]] == ["One", "Two"]


@pytest.mark.parametrize(
    ("piped", "argument", "words"),
    [
        (b"", [], "No prompt was given"),
        (b"\n \n", [], "No prompt was given"),
        (b"\xff\xfe\n", [], "not text in UTF-8"),
        (b"", ["\udcff"], "not text in UTF-8"),
    ],
)
def test_prompts_that_are_none_are_refused_in_one_line(
    run, monkeypatch, capsys, piped, argument, words
):
    monkeypatch.setattr(sys, "argv", ["heldout", "try", str(run.folder), *argument])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped), encoding="utf-8"))
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in error
    assert error.count("\n") == 1
