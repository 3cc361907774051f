"""What is kept: the better of an average and its weights, in one whole folder after any kill."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.lm.nll import document_losses
from heldout.regularizers.ema import EMA
from heldout.training.keeper import Keeper, recover, replace_folder
from heldout.training.steps import evaluation_weights


def writer(text):
    def write(folder):
        folder.mkdir()
        (folder / "weights").write_text(text)

    return write


def test_the_new_folder_takes_the_place_of_the_old(tmp_path):
    best = tmp_path / "best"
    replace_folder(best, writer("first"))
    replace_folder(best, writer("second"))
    assert (best / "weights").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_kill_while_writing_keeps_the_old(tmp_path):
    best = tmp_path / "best"
    replace_folder(best, writer("first"))

    def killed(folder):
        folder.mkdir()
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_folder(best, killed)
    recover(best)
    assert (best / "weights").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    best = tmp_path / "best"
    writer("first")(tmp_path / "best.old")
    writer("second")(tmp_path / "best.partial")
    recover(best)
    assert (best / "weights").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_the_better_of_an_average_and_the_last_weights_is_kept(tiny_model_dir, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    texts = ["The river rises in spring.", "Rain falls on the hills.", "A boat goes down to sea."]
    rows = [
        Row(index=i, group=str(i), messages=({"role": "text", "content": text},))
        for i, text in enumerate(texts)
    ]

    def measure(part):
        return document_losses(model, rows, tokenizer, max_length=48, batch_size=8)

    ema = EMA(decay=0.999)
    ema.prepare(model)
    run = Run.create(tmp_path / "run", Recipe())
    keeper = Keeper(
        run, measure=measure, save=model.save_pretrained, model=model, regularizers=[ema]
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids = tokenizer(texts[0], return_tensors="pt").input_ids

    def step(number):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.after_step(model, number, {})

    def losses():
        with evaluation_weights(model, [ema]):
            average = measure("validation").nats_per_token
        return measure("validation").nats_per_token, average

    def kept():
        saved = load_file(run.best / "model.safetensors")
        return torch.equal(saved["model.norm.weight"], model.model.norm.weight)

    step(100)  # the average hardly moves, and the weights are better by the step
    single, average = losses()
    assert single < average
    keeper.evaluate(1, 0.1, None, 0.5)
    assert kept()
    with torch.no_grad():  # weights that a step has thrown far off
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    single, average = losses()
    assert average < single
    keeper.evaluate(2, 0.2, None, 0.5)
    first, second = run.history()
    assert first["validation_nll"] == pytest.approx(first["single_weights_nll"])
    assert second["validation_nll"] == pytest.approx(average)
    assert second["single_weights_nll"] == pytest.approx(single)
    assert [first["is_best"], second["is_best"]] == [True, False]
