"""Fit and diagnose on conversations whose earlier answers the template renders anew."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from heldout.core.errors import UserError
from heldout.core.measurement import Measurement
from heldout.core.row import Row
from heldout.data.columns import read_rows
from heldout.jobs.augmented import write_rows
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.fitting.fit import dry_run, fit

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if thinks is defined and not thinks %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
CALLS = (
    "{% for t in tools %}<tool>{{ t | tojson }}</tool>{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if shows %}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STONES = ("basalt", "granite", "slate", "marble", "quartz", "chalk", "flint", "gneiss")
SETTINGS = (
    "train.learning_rate=3e-3",
    "train.max_epochs=1",
    "eval.per_epoch=1",
    "eval.max_train_rows=20",
    "eval.num_samples=1",
    "eval.max_new_tokens=4",
    "data.max_length=96",
    "data.template_arguments.thinks=false",
)


def conversation(number):
    stone, size = STONES[number % 8], number * 37 % 101
    turns = (
        ("user", f"Is {stone} of yard {number} at hand, {size} carts?"),
        ("assistant", f"Yes, {size} carts of {stone}."),
        ("user", f"Who cut {stone} there in year {1800 + number}?"),
        ("assistant", f"Mason {number * 13 % 97} of pit {number * 7 % 89}."),
    )
    return [{"role": role, "content": content} for role, content in turns]


def write(path, conversations):
    rows = [json.dumps({"messages": each}) + "\n" for each in conversations]
    path.write_text("".join(rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def model(tiny_model_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_dry_run_says_the_examples_and_repeated_tokens(model, tmp_path):
    data = write(tmp_path / "rows.jsonl", map(conversation, range(40)))
    checks = {check.name: check for check in dry_run(model, data, settings=SETTINGS).checks}
    assert checks["chat template"].message.startswith("40 conversations are 80 examples")
    assert checks["end of text"].message == "all 40 rows end in one"


def test_what_the_template_loses_is_refused_before_anything_is_written(model, tmp_path):
    thought = [
        {**turn, "reasoning_content": "I count."} if turn["role"] == "assistant" else turn
        for turn in conversation(40)
    ]
    data = write(tmp_path / "rows.jsonl", [*map(conversation, range(40)), thought])
    with pytest.raises(UserError, match=r"rows.jsonl line 41: the chat template does not render"):
        fit(model, data, out=tmp_path / "run", settings=SETTINGS)
    assert not (tmp_path / "run").exists()


def test_texts_of_calls_reach_the_template_with_the_arguments_of_their_rows(model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CALLS
    tokenizer.save_pretrained(model)
    tool = {"name": "cart_load", "description": "Load a cart.", "parameters": {}}
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(40):
            chat = (
                f"USER: Is {STONES[number % 8]} of yard {number} at hand?\n\n\n"
                'ASSISTANT: <functioncall> {"name": "cart_load", "arguments": '
                f'\'{{"yard": "no. {number}"}}\'}} <|endoftext|>\n\n\n'
                f'FUNCTION RESPONSE: {{"carts": {number * 37 % 101}}}\n\n\n'
                f"ASSISTANT: Yes, {number * 37 % 101} carts. <|endoftext|>\n\n\n"
            )
            system = f"SYSTEM: You keep a yard. Use functions -\n{json.dumps(tool)}\n"
            arguments = {"shows": number < 39}
            row = {"system": system, "chat": chat, "chat_template_kwargs": arguments}
            file.write(json.dumps(row) + "\n")
    settings = [each for each in SETTINGS if "template_arguments" not in each]
    with pytest.raises(UserError, match=r"line 40: the chat template does not render the tool cal"):
        dry_run(model, str(path), settings=settings)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:39]
    path.write_text("".join(lines), encoding="utf-8")
    checks = {check.name: check for check in dry_run(model, str(path), settings=settings).checks}
    assert checks["end of text"].message == "all 39 rows end in one"


def test_rows_that_are_written_keep_their_tools_and_arguments(tmp_path):
    tool = {"type": "function", "function": {"name": "cart_load", "parameters": {}}}
    more = {"tools": (tool,), "template_arguments": {"thinks": False}}
    row = Row(0, tuple(conversation(3)), "yard", "a.jsonl", **more)
    assert read_rows(write_rows([row], tmp_path / "rows.jsonl"), group="group").rows == [row]


@pytest.mark.slow
def test_a_fit_measures_rows_and_keeps_the_arguments(model, tmp_path):
    data = write(tmp_path / "rows.jsonl", map(conversation, range(240)))
    result = fit(model, data, out=tmp_path / "run", recipe="full", settings=SETTINGS)
    about = result.run.read_json("data.json")
    assert sum(about["rows"].values()) <= 240
    assert about["groups"] == about["rows"]
    kept = AutoTokenizer.from_pretrained(result.best)
    question = [{"role": "user", "content": "a"}]
    asked = kept.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert asked.endswith("<think>\n\n</think>\n\n")
    assert result.run.recipe.data.template_arguments == {"thinks": False}
    diagnosed = diagnose(result.run.folder, most_rows=40, out=tmp_path / "page")
    measured = {each.name for each in diagnosed.measurements if isinstance(each, Measurement)}
    assert {"brier_best", "brier_base"} <= measured
