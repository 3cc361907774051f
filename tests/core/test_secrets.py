"""Neither tokens nor passwords stay in what a run keeps of its command."""

import sys
from pathlib import Path

import pytest

from heldout.core.environment import environment
from heldout.core.secrets import arguments_without_secrets, without_secrets

TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ123456"  # made up, and in two parts for scanners


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["--token", "pw 1"], "--token ***"),
        (["--hf-token=pw1"], "--hf-token=***"),
        (["--wandb_api_key", "0123abc", "--epochs", "3"], "--wandb_api_key *** --epochs 3"),
        (["HF_TOKEN=pw1"], "HF_TOKEN=***"),
        (["db.password=pw1", "--set", "train.seed=3"], "db.password=*** --set train.seed=3"),
        ([TOKEN], "***"),
        ([f"org/name@{TOKEN}"], "org/name@***"),
        (["https://me:pw1@host.org/rows.jsonl"], "https://***@host.org/rows.jsonl"),
        (["postgresql://me:pw1@host:5432/x"], "postgresql://***@host:5432/x"),
        (["https://host.org/x?a=1&token=pw1&b=2"], "https://host.org/x?a=1&token=***&b=2"),
        (["https://host.org/x?X-Amz-Signature=pw1"], "https://host.org/x?X-Amz-Signature=***"),
        (["Authorization: Bearer pw1"], "Authorization: ***"),
        (["sk-proj-" + "0123456789abcdef"], "***"),
    ],
)
def test_secrets_are_hidden(arguments, kept):
    assert " ".join(arguments_without_secrets(arguments)) == kept


@pytest.mark.parametrize(
    "text",
    [
        "--set eval.max_new_tokens=4 --set hyperfit.context_tokens=8",
        '--set data.key_facts=["[0-9]+"] --model package:heldout --tokenizer org/name',
        "--data https://host.org/rows.jsonl --fact a@b.org",
        "regularizers.token_noise.share=0.1 model.tie_weights=true --set data.max_row_mib=9",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text
    assert arguments_without_secrets(text.split(" ")) == text.split(" ")


def test_a_run_keeps_no_secret_of_its_command(monkeypatch):
    home = str(Path("~").expanduser())
    given = ["/usr/bin/train.py", "--hf_token", "pw1", f"{home}/rows.jsonl", "https://me:pw1@x/y"]
    monkeypatch.setattr(sys, "argv", given)
    command = environment()["command"]
    assert command == "train.py --hf_token *** ~/rows.jsonl https://***@x/y"
