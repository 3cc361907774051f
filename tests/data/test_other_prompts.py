"""Answers after prompts of other rows."""

from heldout.core.row import Row
from heldout.data.other_prompts import foreign_prompts

NUM = 4


def asked(number, prompt, answer, group=None):
    messages = (
        {"role": "prompt", "content": prompt},
        {"role": "completion", "content": answer},
    )
    return Row(number, messages, group or f"g{number}")


def test_other_prompts_are_of_other_groups_and_differ():
    rows = [asked(n, f"question {n % 12}", f"answer {n}", f"g{n // 4}") for n in range(48)]
    for row, variants in zip(rows, foreign_prompts(rows, NUM, seed=3), strict=True):
        assert len(variants) == NUM
        prompts = [each.messages[0]["content"] for each in variants]
        assert len(set(prompts)) == NUM
        assert row.messages[0]["content"] not in prompts
        assert {each.messages[-1]["content"] for each in variants} == {row.messages[-1]["content"]}
        assert row.group not in {each.group for each in variants}
    assert foreign_prompts(rows, NUM, seed=3) == foreign_prompts(rows, NUM, seed=3)
    assert foreign_prompts(rows, NUM, seed=4) != foreign_prompts(rows, NUM, seed=3)


def test_rows_without_one_answer_or_with_one_prompt_for_all_have_none():
    same = [asked(n, "Say something.", f"answer {n}") for n in range(40)]
    assert foreign_prompts(same, NUM, 0) == [[]] * 40
    texts = [Row(n, ({"role": "text", "content": f"text {n}"},), f"g{n}") for n in range(40)]
    assert foreign_prompts(texts, NUM, 0) == [[]] * 40
    turns = ("user", "assistant", "user", "assistant")
    talks = [
        Row(n, tuple({"role": role, "content": f"{role} {n}"} for role in turns), f"g{n}")
        for n in range(40)
    ]
    assert foreign_prompts(talks, NUM, 0) == [[]] * 40
