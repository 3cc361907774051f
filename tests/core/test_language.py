import pytest

from heldout.core.errors import UserError
from heldout.core.language import Sentences, checked, language, languages, say, using

TABLE = {
    "Sealed test": "封存的测试集",
    "kept": "已保留",
    "The loss rose by {0} from {1}.": "损失从 {1} 起上升了 {0}。",
    "Nothing was written.": "没有写入任何内容。",
    "{0} of {1}": "{1} 中的 {0}",
    "{0} row": "{0} 行",
    "{0} rows": "{0} 行",
    "warning: {0}": "警告：{0}",
    "(95 %: {0} to {1})": "（95%：{0} 至 {1}）",
    "It was seen {0} times{1}.{2}": "它被看过 {0} 次{1}。{2}",
    "Not known: {0}.": "未知：{0}。",
    "too few rows. Give more": "数据太少。请给出更多",
    'has no "{0}"': "没有“{0}”",
    "{0} rows that everyone has seen": "人人见过的 {0} 行",
    "{0}: skipped": "{0}：已跳过",
    "the best checkpoint": "最佳检查点",
    "Choose between {0} and more data.": "请在{0}与更多数据之间选择。",
    "{0} line {1}": "{0} 第 {1} 行",
    "Training row {0}": "训练数据第 {0} 条",
    "Training row": "训练数据",
    "By eval_{0}_loss": "从 eval_{0}_loss 看",
    '{0} is called "{1}" now': "{0} 现称“{1}”",
}


@pytest.fixture
def table():
    return Sentences(TABLE)


@pytest.mark.parametrize(
    ("english", "said"),
    [
        ("Sealed test", "封存的测试集"),
        ("  Sealed test\n", "  封存的测试集\n"),
        ("The loss rose by 0.5 from epoch 3.", "损失从 epoch 3 起上升了 0.5。"),
        (
            "The loss rose by 0.5 from 3. Nothing was written.",
            "损失从 3 起上升了 0.5。没有写入任何内容。",
        ),
        (
            "Nothing was written. No entry has this.",
            "没有写入任何内容。No entry has this.",
        ),
        ("warning: Nothing was written.", "警告：没有写入任何内容。"),
        ("3 rows; kept", "3 行；已保留"),
        ("3 of 5", "5 中的 3"),
        ("train_nll of 5", "5 中的 train_nll"),
        ("train_nll: kept", "train_nll：已保留"),
        ("12 %", "12%"),
        ("The loss rose by 5\u00a0% from 3.", "损失从 3 起上升了 5%。"),
        ('rows.jsonl line 6: has no "kept"', "rows.jsonl 第 6 行：没有“kept”"),
        ("Training row · rows.jsonl line 6", "训练数据 · rows.jsonl 第 6 行"),
        ("By eval_in_loss: kept", "从 eval_in_loss 看：已保留"),
        ("It was seen 1.5 times.", "它被看过 1.5 次。"),
        ("It was seen 1.5 times (95 %: 1.2 to 2).", "它被看过 1.5 次（95%：1.2 至 2）。"),
        (
            "Choose between 0.5 nats (95 %: 0 to 1) and more data.",
            "请在0.5 nats （95%：0 至 1）与更多数据之间选择。",
        ),
        ("+ The loss rose by 0.5 from 3.", "+ 损失从 3 起上升了 0.5。"),
        ("- Sealed test", "- 封存的测试集"),
        ("The loss rose by 0.5 from Kim et al. 2025.", "损失从 Kim et al. 2025 起上升了 0.5。"),
        ('has no "kept"', "没有“kept”"),
        ("Any label at all: skipped", "Any label at all：已跳过"),
        ("3 rows of train.jsonl", "train.jsonl 中的 3 行"),
        ("Sealed test: 3 rows, kept", "封存的测试集：3 行，已保留"),
        ("kept: 3 rows that everyone has seen", "已保留：人人见过的 3 行"),
        ("Not known: too few rows. Give more.", "未知：数据太少。请给出更多。"),
        ("Choose between the best checkpoint and more data.", "请在最佳检查点与更多数据之间选择。"),
        ("0.25", "0.25"),
        ("–", "–"),
        ("", ""),
    ],
)
def test_finished_sentences_are_found_by_what_they_came_from(table, english, said):
    assert table.say(english) == said


@pytest.mark.parametrize(
    "text",
    [
        "The heart of the matter",  # "{0} of {1}" takes numbers and known phrases alone
        "kept, but not said by us",
        "train.jsonl: kept",
        'this is called "a" now, that is called "b" now',
        "100\u00a0% of it all",
        "data/kept, Sealed",
        "The loss rose by nothing that we know; it fell from 3.",  # a clause is no field
        "x" * 5000 + " of 3",
    ],
)
def test_what_no_entry_covers_stays_as_it_is(table, text):
    assert table.say(text) == text


def test_sentences_without_an_entry_are_remembered(table):
    table.say("Nothing was written. No entry has this.")
    assert table.unsaid == {"No entry has this."}


def test_english_is_the_default_and_a_block_ends(monkeypatch):
    monkeypatch.delenv("HELDOUT_LANG", raising=False)
    assert say("diverged") == "diverged"
    with using("zh"):
        assert say("diverged") != "diverged"
    assert language() == "en"


def test_the_environment_names_a_language(monkeypatch):
    monkeypatch.setenv("HELDOUT_LANG", "zh_CN.UTF-8")
    assert language() == "zh"
    monkeypatch.setenv("HELDOUT_LANG", "tlh")
    with pytest.raises(UserError, match=r"HELDOUT_LANG must be a language .* got 'tlh'"):
        language()


def test_a_language_without_a_table_is_refused():
    assert languages()[0] == "en"
    with pytest.raises(UserError, match="Known: en, zh"):
        checked("klingon")
