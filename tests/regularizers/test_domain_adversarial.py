import math

import pytest
import torch
import torch.nn.functional as F
from full_logits import gradients, model64, nll, num_scored, window
from transformers import Trainer, TrainingArguments

from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.regularizers.domain_adversarial import (
    DomainAdversarial,
    gradient_reversed,
    pooled,
    reversal_strength,
)
from heldout.regularizers.label_smoothing import LabelSmoothing
from heldout.regularizers.sam import SAM
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.attach import attach
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset


@pytest.fixture
def model(tiny_model_dir):
    return model64(tiny_model_dir)


def sourced(batches, *sources):
    for batch, source in zip(batches, sources, strict=True):
        batch["source_index"] = torch.tensor(source)
    return batches


def test_the_reversal_grows_as_in_the_paper():
    for share in (0.0, 0.1, 0.5, 1.0):
        expected = 2 / (1 + math.exp(-10 * share)) - 1
        assert reversal_strength(share, 10.0) == pytest.approx(expected, abs=1e-15)
    x = torch.tensor([2.0], requires_grad=True)
    gradient_reversed(x, 0.3).square().sum().backward()
    assert x.grad.item() == pytest.approx(-0.3 * 2 * 2)


def test_the_mean_is_over_scored_positions_alone():
    (batch,) = window((9, 5))
    batch["labels"][1] = -100
    num = num_scored([batch])
    mean, counts = pooled(torch.arange(float(num))[:, None], batch["labels"])
    assert counts.tolist() == [num, 0]
    assert mean.flatten().tolist() == [(num - 1) / 2, 0.0]


def test_model_and_discriminator_pull_against_each_other(model):
    """Gradients of the two losses by themselves, put together as in the paper."""
    batches = sourced(window((9, 5, 8), (14,)), [0, 2, 1], [1])
    regularizer = DomainAdversarial(weight=0.7, domains=3, gamma=10.0)
    steps = Steps(model, [regularizer], total_steps=10)
    (regularizer,) = steps.regularizers
    discriminator = regularizer._own["discriminator"]
    steps.step = 4
    found_loss = steps.gradient(batches)
    found = gradients(model)
    own = [p.grad.clone() for p in discriminator.parameters()]

    strength = 0.7 * (2 / (1 + math.exp(-10 * 0.4)) - 1)
    task, naming = 0.0, 0.0
    for batch in batches:
        hidden = model.model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        for row, labels in enumerate(batch["labels"]):
            keep = labels[1:] != -100
            states, targets = hidden[row, :-1][keep], labels[1:][keep]
            task = task + nll(model.lm_head(states).log_softmax(-1), targets)
            scores = discriminator(states.mean(0).float())
            guess = F.cross_entropy(scores, batch["source_index"][row])
            naming = naming + int(keep.sum()) * guess
    task, naming = task / num_scored(batches), naming / num_scored(batches)
    assert found_loss == pytest.approx((task + naming).item(), rel=1e-6)
    names = dict(model.named_parameters())
    of_task = torch.autograd.grad(task, list(names.values()), retain_graph=True)
    of_naming = torch.autograd.grad(
        naming, list(names.values()), retain_graph=True, allow_unused=True
    )
    for name, one, other in zip(names, of_task, of_naming, strict=True):
        torch.testing.assert_close(found[name], one - strength * other, rtol=1e-4, atol=1e-7)
    expected = torch.autograd.grad(naming, list(discriminator.parameters()))
    for one, other in zip(own, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_the_discriminator_learns_and_is_no_part_of_the_model(model):
    model = model.float()
    batches = sourced(window((9, 5, 8, 7)), [0, 1, 0, 1])
    regularizer = DomainAdversarial(weight=0.0, rate=1e-2)
    steps = Steps(model, [regularizer], total_steps=40)
    (regularizer,) = steps.regularizers
    names = list(model.state_dict())
    optimizer = torch.optim.SGD(steps.parameter_groups(0.0))
    losses = []
    for _ in range(40):
        losses.append(steps.gradient(batches))
        steps.done(optimizer)
    assert losses[-1] < losses[0] - 0.4
    assert list(model.state_dict()) == names
    again = DomainAdversarial(weight=0.0, rate=1e-2)
    again.prepare(model)
    again.load_state_dict(regularizer.state_dict())
    assert again.state_dict()["moments"][0]["step"] == 40
    for key, value in regularizer.state_dict()["discriminator"].items():
        assert torch.equal(value, again.state_dict()["discriminator"][key])


@pytest.fixture
def windows(tiny_tokenizer):
    rows = [
        Row(i, ({"role": "text", "content": f"Row {i}."},), f"row-{i}", source=source)
        for i, source in enumerate(("shop", "news", "shop", "forum"))
    ]
    return WindowDataset(rows, tiny_tokenizer, 32)


def test_windows_know_their_source(windows, tiny_tokenizer):
    batch = windows.collate([windows[i] for i in range(4)])
    assert windows.sources == ["forum", "news", "shop"]
    assert batch["source_index"].tolist() == [2, 1, 2, 0]
    one = [Row(0, ({"role": "text", "content": "Row."},), "row-0", source="shop")]
    assert "source_index" not in WindowDataset(one, tiny_tokenizer, 32)[0]


@pytest.mark.parametrize(
    "regularizer", [DomainAdversarial(domains=3), LabelSmoothing(), WeightDecay()]
)
def test_a_trainer_keeps_sources_from_the_model(regularizer, windows, model, tmp_path):
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    seen = set()
    model.register_forward_pre_hook(lambda _, args, named: seen.update(named), with_kwargs=True)
    trainer = Trainer(
        model=model.float(),
        args=arguments,
        train_dataset=windows,
        eval_dataset=windows,
        data_collator=windows.collate,
    )
    attach(trainer, [regularizer])
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    assert "input_ids" in seen
    assert not {"row_index", "source_index"} & seen


def test_data_without_sources_is_refused(model):
    with pytest.raises(UserError, match=r"give the data a source column.*data\.columns\.source"):
        Steps(model, [DomainAdversarial()], total_steps=4).gradient(window((9, 5)))
    batches = sourced(window((9, 5)), [0, 2])
    with pytest.raises(UserError, match=r"DomainAdversarial\(domains=2\): the data has 3 or more"):
        Steps(model, [DomainAdversarial()], total_steps=4).gradient(batches)


def test_it_needs_to_know_how_long_training_is(model):
    steps = Steps(model, [DomainAdversarial()])
    batches = sourced(window((9, 5)), [0, 1])
    steps.gradient(batches)
    steps.step = 1
    with pytest.raises(UserError, match=r"Steps\(total_steps=\.\.\.\)"):
        steps.gradient(batches)


def test_bad_values():
    with pytest.raises(UserError, match=r"Adversarial\(weight=...\) must be 0 or more, got -1."):
        DomainAdversarial(weight=-1)
    with pytest.raises(UserError, match=r"Adversarial\(domains=...\) must be 2 or more, got 1."):
        DomainAdversarial(domains=1)
    with pytest.raises(UserError, match=r"Adversarial\(gamma=...\) must be above 0, got 0."):
        DomainAdversarial(gamma=0)


@pytest.mark.parametrize("beside", [[], [SAM(radius=1e-9)]], ids=["alone", "beside SAM"])
def test_the_discriminator_has_the_gradient_of_one_window(beside, model):
    batches = sourced(window((9, 5), (14, 3)), [0, 1], [1, 0])
    steps = Steps(model, [DomainAdversarial(weight=0.5), *beside], total_steps=2)
    steps.gradient(batches)
    own = steps.regularizers[0]._own["discriminator"]
    found = [p.grad.clone() for p in own.parameters()]
    alone = Steps(model, [DomainAdversarial(weight=0.5)], total_steps=2)
    model.zero_grad()
    alone.gradient(batches)
    expected = alone.regularizers[0]._own["discriminator"].parameters()
    for one, parameter in zip(found, expected, strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-7)
