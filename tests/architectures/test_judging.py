"""Architectures of many kinds, judged as the benchmark judges them; all of them where time is no
matter.
"""

import pytest
from judging import JUDGES, judged
from tiny_architectures import ALL, NOT_BUILT

FEW = ("llama", "mamba", "roberta", "xlnet")


def check(model_type):
    found = judged(model_type)
    assert found.keys() == JUDGES.keys()
    wrong = {
        name: verdict
        for name, verdict in found.items()
        if verdict not in ("right", "effective") and not verdict.startswith("refused: ")
    }
    assert not wrong


pytestmark = pytest.mark.filterwarnings("ignore")  # of models' own code


@pytest.mark.parametrize("model_type", FEW)
def test_of_each_kind_one_is_right_throughout(model_type):
    check(model_type)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in ALL if name not in {*NOT_BUILT, *FEW}])
def test_every_architecture_is_right_or_refused(model_type):
    check(model_type)
