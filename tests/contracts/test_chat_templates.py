"""Every chat template that TRL ships, original and patched: each answer is scored exactly once."""

import pytest
import transformers
from packaging.version import Version
from turn_by_turn import CONVERSATIONS, PLAIN, judge, template_names

pytestmark = pytest.mark.skipif(not template_names(), reason="this TRL ships no templates as files")


# Older releases render the reasoning of answers otherwise, so that it is scored with them.
SCORED_WITH_REASONING = {"gptoss", "gptoss_training", "lfm2_2_5"}
IS_OLDER = Version(transformers.__version__) < Version("5.21")


@pytest.mark.parametrize("template", template_names())
def test_every_answer_is_scored_once_behind_what_the_model_sees(template):
    if IS_OLDER and template in SCORED_WITH_REASONING:
        pytest.skip("transformers before 5.21: reasoning is scored with the answer")
    judged = [judge(template, name) for name in CONVERSATIONS]
    assert not [(one.conversation, one.wrong) for one in judged if one.wrong]
    assert not [(one.conversation, one.lost) for one in judged if one.lost]
    refused = {one.conversation: one.refusal for one in judged if one.refusal}
    assert not refused.keys() & PLAIN.keys()
    assert not [one.refusal for one in judged if one.needless]


def test_a_template_that_keeps_its_renderings_gives_one_example():
    assert {judge("llama3", name).num_examples for name in PLAIN} == {1}
    assert [judge("qwen3", name).num_examples for name in PLAIN] == [1, 2, 3]


def test_the_patched_templates_are_compared_with():
    compared = [judge(name, "two turns").compared_with_patch for name in template_names()]
    assert sum(compared) > 15
