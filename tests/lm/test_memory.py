"""A model that does not fit is refused before its weights are read."""

import json
import shutil
import struct

import pytest
import torch

from heldout.core.errors import UserError
from heldout.lm.accelerator import free_bytes
from heldout.lm.load import from_scratch, load_model
from heldout.lm.memory import num_weights_in, refuse_too_large


def huge(folder, num_weights):
    """A safetensors file that says it holds so many weights; the data is a hole in the file."""
    folder.mkdir()
    header = {"w": {"dtype": "U8", "shape": [num_weights], "data_offsets": [0, num_weights]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + num_weights)
    return folder


def test_one_clear_line(tmp_path):
    free = free_bytes("cpu")
    folder = huge(tmp_path / "model", free // 4 + 10**8)
    with pytest.raises(UserError, match=r"Model it needs [\d.]+ GB .* in float32, [\d.]+ GB are"):
        refuse_too_large(num_weights_in(folder), "it", torch.float32, "cpu")
    refuse_too_large(num_weights_in(folder), "it", torch.uint8, "cpu")  # a quarter of that


def test_loading_refuses(tmp_path, tiny_model_dir):
    folder = huge(tmp_path / "model", free_bytes("cpu") // 4 + 10**8)
    for file in tiny_model_dir.iterdir():
        if file.suffix in (".json", ".model"):
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="for its weights"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("vocab_size", 10**10, "for its weights"),
        ("num_hidden_layers", 10**7, "between 1 and 10000, got 10000000"),
    ],
)
def test_a_configuration_beyond_the_files_is_refused_before_it_is_built(
    key, value, words, tmp_path, tiny_model_dir
):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match=words):
        load_model(str(folder), device="cpu")
    with pytest.raises(UserError, match=words):
        from_scratch(folder, tiny_model_dir, seed=0)
