"""The embedded model, tuned soundly and at 20 times the rate: what it writes is told apart."""

import json

import pytest
import torch

from heldout.cli.diagnose import failures
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.kit.checkpoints import save_model
from heldout.lm.load import load_model

NUM_TRAIN, NUM_HELDOUT, BATCH, TOKENS = 48, 24, 8, 64
SOUND, BROKEN = 1e-3, 2e-2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(english_text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    paragraphs = [" ".join(p.split()) for p in english_text.split("\n\n")]
    texts = list(dict.fromkeys(p for p in paragraphs if 300 < len(p) < 500))
    parts = {"heldout": texts[:NUM_HELDOUT], "train": texts[NUM_HELDOUT:][:NUM_TRAIN]}
    for name, of_part in parts.items():
        lines = "".join(json.dumps({"text": text}) + "\n" for text in of_part)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def tuned(files):
    """Folders of two models by their learning rate, each trained for three epochs."""
    return {rate: tuned_at(rate, files) for rate in (SOUND, BROKEN)}


def tuned_at(rate, files):
    loaded = load_model("package:heldout", device="cpu")
    lines = (files / "train.jsonl").read_text().splitlines()
    ids = [loaded.tokenizer(json.loads(line)["text"]).input_ids[:TOKENS] for line in lines]
    rows = torch.tensor([each for each in ids if len(each) == TOKENS])
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=rate)
    torch.manual_seed(0)
    loaded.model.train()
    for _ in range(3):
        for chosen in torch.randperm(len(rows)).split(BATCH):
            loaded.model(input_ids=rows[chosen], labels=rows[chosen]).loss.backward()
            torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    save_model(loaded.model, loaded.tokenizer, files / f"model-{rate}")
    return files / f"model-{rate}"


def diagnosed(folder, base="package:heldout"):
    rows = {name: folder.parent / f"{name}.jsonl" for name in ("train", "heldout")}
    return diagnose(folder, **rows, base=base, probes=("repetition", "generated_loss")).verdict


def test_broken_writing_is_red_and_sound_writing_never(tuned):
    broken, sound = (diagnosed(tuned[rate]) for rate in (BROKEN, SOUND))
    said = {name: v.verdicts["generation"] for name, v in (("broken", broken), ("sound", sound))}
    assert said["broken"].color == "red", said
    assert said["sound"].color != "red", said
    assert failures(broken, ["generation"]) == ["generation"]
    assert failures(sound, ["generation"]) == []


def test_without_a_base_it_is_unknown_and_says_so(tuned):
    alone = diagnosed(tuned[BROKEN], base="").verdicts["generation"]
    assert alone.color == "unknown"
    assert "name it with --base" in alone.sentence
