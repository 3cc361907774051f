"""The main job on objects: a model, rows, a recipe built in Python, a regularizer of one's own."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import heldout


@dataclass(frozen=True)
class Counting(heldout.Regularizer):
    """Counts the steps."""

    limit: int = 10
    steps: list = field(default_factory=list, init=False, repr=False, compare=False)

    def after_step(self, model, step, rates):
        STEPS.append(step)


STEPS: list[int] = []


class StopSoon(heldout.Progress):
    """Ctrl-C in the middle of the training."""

    def advance(self, steps=1, figures=""):
        if len(STEPS) > 3:
            raise KeyboardInterrupt


RECIPE = heldout.Recipe(
    name="built",
    data=heldout.DataSection(max_length=32),
    model=heldout.ModelSection(method="full"),
    train=heldout.TrainSection(learning_rate=1e-3, max_epochs=2.0),
    eval=heldout.EvalSection(max_train_rows=10, num_samples=1, max_new_tokens=4),
)


@pytest.mark.slow
def test_a_model_rows_and_a_class_of_ones_own(tiny_model_dir, tiny_tokenizer, data, tmp_path):
    with Path(data).open() as file:
        rows = [json.loads(line) for line in file][:70]
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    out = tmp_path / "run"
    with pytest.raises((heldout.Interrupted, KeyboardInterrupt)):
        heldout.fit(
            model,
            rows,
            tokenizer=tiny_tokenizer,
            out=out,
            recipe=RECIPE,
            regularizers=[heldout.L2SP(rate=0.01), Counting()],
            progress=StopSoon(),
        )
    assert STEPS
    run = heldout.Run.open(out)
    assert run.read_json("data.json")["source"] == "data"
    own = f"{__name__}:Counting"
    assert list(run.recipe.regularizers) == ["l2_sp", own]
    with pytest.raises(heldout.UserError, match=r"given as an object \(LlamaForCausalLM\): give"):
        heldout.resume(out)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    with pytest.raises(heldout.UserError, match=r"is not the one that .* was started with"):
        heldout.resume(out, model=model, tokenizer=tiny_tokenizer)
    model.load_state_dict(before)
    result = heldout.resume(out, model=model, tokenizer=tiny_tokenizer)
    assert run.status["state"] == "complete"
    assert AutoModelForCausalLM.from_pretrained(result.best) is not None
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])  # the object itself is not trained
    heldout.resume(out)  # complete: judged again without the model
    found = heldout.diagnose(
        model,
        tokenizer=tiny_tokenizer,
        train=rows[:30],
        heldout=rows[40:],
        generate=False,
        probes=["generalization_gap"],
    )
    assert found.target == "LlamaForCausalLM"


def test_a_class_that_is_absent_is_refused_on_resume(tmp_path, monkeypatch):
    run = heldout.Run.create(tmp_path / "run", heldout.Recipe(regularizers={"gone_away:Own": {}}))
    run.write_json("environment.json", {"model": "m"})
    with pytest.raises(heldout.UserError, match=r"regularizers\.gone_away:Own, which runs code"):
        heldout.resume(run.folder)
    assert "gone_away" not in sys.modules
    from heldout.core.discovery import build

    with pytest.raises(heldout.UserError, match="The regularizer gone_away:Own is absent here"):
        build("regularizer", "gone_away:Own", {})
