"""Weight decay reaches what multiplies, and nothing else, as a watched call shows."""

import pytest
from decaying import decayed_wrongly
from tiny_architectures import ALL, NOT_BUILT, tiny_model

from heldout.lm.matrices import is_matrix

DIFFICULT = [
    "dbrx",
    "falcon_mamba",
    "gemma3n_text",
    "gpt2",
    "gpt_oss",
    "inkling_text",
    "jamba",
    "jetmoe",
    "kimi_linear",
    "mamba",
    "mamba2",
    "recurrent_gemma",
    "rwkv",
    "zamba",
]


@pytest.mark.parametrize("model_type", DIFFICULT)
def test_what_multiplies_is_decayed(model_type):
    assert decayed_wrongly(tiny_model(model_type)) == []


def test_the_exponents_of_selective_scans_are_left_alone():
    decayed = [
        name
        for model_type in ("mamba", "falcon_mamba", "jamba", "kimi_linear", "zamba")
        for name, parameter in tiny_model(model_type).named_parameters()
        if is_matrix(name, parameter)
    ]
    assert decayed
    assert not [name for name in decayed if name.endswith(("A_log", ".D"))]


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in ALL if name not in NOT_BUILT])
def test_every_architecture_is_decayed_by_use(model_type):
    assert decayed_wrongly(tiny_model(model_type)) == []
