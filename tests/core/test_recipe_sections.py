"""Settings that exclude each other are refused where a recipe is made."""

import importlib.util

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantized_base_needs_an_adapter_that_takes_nothing_from_it(bits):
    with pytest.raises(UserError, match=r"use model\.method=lora, .*got model\.method=full"):
        Recipe().replace(model={"load_in": bits, "method": "full"})
    for adapter in ("pissa", "olora"):
        with pytest.raises(UserError, match=f"model.adapter={adapter} takes a part"):
            Recipe().replace(model={"load_in": bits, "adapter": adapter})
    for adapter in ("lora", "rslora", "dora"):
        Recipe().replace(model={"load_in": bits, "adapter": adapter})


def test_without_the_package_one_line_tells_how_to_get_it(tiny_model_dir):
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    from heldout.jobs.kit.target import Target

    recipe = Recipe().replace(model={"load_in": "4bit"})
    with pytest.raises(UserError, match=r"pip install 'heldout\[quantized\]'"):
        Target.of(str(tiny_model_dir), "").load(recipe)
