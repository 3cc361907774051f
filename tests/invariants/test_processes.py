"""Two processes with two micro-batches each compute the gradient of one batch of four.

The four rows are of very unequal length, so that any mean of means shows.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import CASES, case_names
from transformers import AutoConfig, AutoModelForCausalLM

WORKER = Path(__file__).with_name("process_worker.py")
NAMES = [
    name for name in case_names() if name in CASES and CASES[name].trainer and CASES[name].exact
]

pytestmark = pytest.mark.slow


def launch(mode, folder, output, names=NAMES):
    command = [sys.executable]
    if not mode.endswith("single"):
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(WORKER), mode, str(folder), str(output), *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(output, weights_only=True)


@pytest.fixture(scope="module", params=["tied", "untied"])
def model_dir(request, tiny_model_dir, tmp_path_factory):
    """A model whose output layer is its embedding, and one with an output layer of its own."""
    if request.param == "tied":
        return tiny_model_dir
    folder = shutil.copytree(tiny_model_dir, tmp_path_factory.mktemp("untied") / "model")
    config = AutoConfig.from_pretrained(folder, tie_word_embeddings=False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def found(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return {
        mode: launch(mode, model_dir, folder / f"{mode}.pt")
        for mode in ("single", "ddp", "fsdp", "trainer_single", "trainer_ddp")
    }


@pytest.mark.parametrize("mode", ["ddp", "fsdp", "trainer_ddp"])
@pytest.mark.parametrize("name", NAMES)
def test_two_by_two_is_four(name, mode, found):
    alone = "trainer_single" if mode.startswith("trainer") else "single"
    one, several = found[alone][name], found[mode][name]
    assert not isinstance(one, str), one
    assert not isinstance(several, str), several
    assert one.keys() == several.keys()
    for key, value in one.items():
        difference = (value - several[key]).abs().max().item()
        assert difference < 2e-6, f"{key} differs by {difference}"
