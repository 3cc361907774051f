"""What must hold whatever the regularizers: nothing changed without them, right divisors with."""

import copy
import inspect

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.regularizer import PerStep, Regularizer, TokenSum
from heldout.core.row import Row
from heldout.regularizers.child_tuning import ChildTuning
from heldout.regularizers.dropout import Dropout
from heldout.regularizers.ema import EMA
from heldout.regularizers.label_smoothing import LabelSmoothing
from heldout.regularizers.layer_decay import LayerDecay
from heldout.regularizers.sam import SAM
from heldout.regularizers.smart import SMART
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.attach import attach
from heldout.training.cost import total_cost
from heldout.training.windows import WindowDataset

TEXTS = ("The with statement wraps a block.", "Lists.", "A for loop goes through an iterable " * 6)


def rows(num):
    return [
        Row(i, ({"role": "text", "content": f"{TEXTS[i % 3]} {i}"},), f"row-{i}")
        for i in range(num)
    ]


@pytest.fixture
def windows(tiny_tokenizer):
    return WindowDataset(rows(16), tiny_tokenizer, 64)


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def trainer_for(model, windows, tmp_path, *, batch=4, accumulation=1, steps=4, plain=False, **more):
    options = {
        "save_strategy": "no",
        "max_grad_norm": 0.0,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        **more,
    }
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        lr_scheduler_type="constant",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
        **options,
    )

    def collate(items):
        batch = windows.collate(items)
        if plain:
            del batch["row_index"]
        return batch

    return Trainer(model=model, args=arguments, train_dataset=windows, data_collator=collate)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def trained(model, windows, tmp_path, regularizers=None, logit_free=False, **options):
    """Weights after training a copy; regularizers None leaves the Trainer as it is."""
    model = copy.deepcopy(model)
    trainer = trainer_for(model, windows, tmp_path, plain=regularizers is None, **options)
    if regularizers is not None:
        attach(trainer, regularizers, logit_free=logit_free)
    trainer.train()
    return weights(model)


def assert_same(one, other, tolerance=0.0):
    for name, value in one.items():
        difference = (value - other[name]).abs().max().item()
        assert difference <= tolerance, f"{name} differs by {difference}"


def test_nothing_attached_changes_nothing_bit_for_bit(model, windows, tmp_path):
    plain = trained(model, windows, tmp_path, None)
    assert_same(plain, trained(model, windows, tmp_path, []))
    start = weights(model)
    assert any(not torch.equal(plain[name], start[name]) for name in plain)


def test_versions_that_are_not_allowed_are_told(model, windows, tmp_path, caplog, monkeypatch):
    caplog.set_level("WARNING", "heldout")
    outside = []
    monkeypatch.setattr("heldout.training.attach.versions_outside", lambda: outside)
    attach(trainer_for(model, windows, tmp_path), [])
    assert not caplog.messages
    outside.append(words := "transformers 6.0.0 (>=5.10.1,<6)")
    attach(trainer_for(model, windows, tmp_path), [])
    assert f"versions that heldout allows: {words}. Should" in caplog.messages[0]


def test_the_logit_free_loss_is_the_plain_one(model, windows, tmp_path):
    plain = trained(model, windows, tmp_path, None, optim="sgd")
    assert_same(plain, trained(model, windows, tmp_path, [], True, optim="sgd"), 1e-6)


class TokenPenalty(Regularizer):
    """The task loss a second time: must weigh exactly as much as the first."""

    def extra_loss(self, passes, batch):
        return TokenSum(passes.again().cross_entropy())


class StepPenalty(Regularizer):
    """An L2 penalty added to the loss, through the weights of the embedding."""

    def __init__(self, model=None):
        object.__setattr__(self, "model", model)

    def prepare(self, model):
        object.__setattr__(self, "model", model)

    def extra_loss(self, passes, batch):
        return PerStep((self.model.get_input_embeddings().weight ** 2).sum())


@pytest.mark.parametrize(
    "regularizers",
    [[], [LabelSmoothing(amount=0.1)], [TokenPenalty()], [StepPenalty()]],
    ids=["none", "label_smoothing", "token_sum", "per_step"],
)
def test_one_batch_of_four_equals_four_micro_batches(model, windows, tmp_path, regularizers):
    """Rows of very unequal length: a mean of means would be wrong."""
    options = {"logit_free": True, "optim": "sgd"}
    one = trained(model, windows, tmp_path, regularizers, batch=4, **options)
    four = trained(model, windows, tmp_path, regularizers, batch=1, accumulation=4, **options)
    assert_same(one, four, 2e-6)


def test_a_token_sum_weighs_like_the_task_loss(model, windows, tmp_path):
    doubled = trained(model, windows, tmp_path, [TokenPenalty()], optim="sgd", steps=1)
    faster = trained(model, windows, tmp_path, None, optim="sgd", steps=1, learning_rate=2e-2)
    assert_same(doubled, faster, 1e-6)


def test_label_smoothing_is_that_of_torch(model, windows, tmp_path):
    amount = 0.2

    class Smoothed(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            inputs.pop("row_index")
            logits = model(**inputs).logits[:, :-1]
            return (
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1),
                    labels[:, 1:].flatten(),
                    label_smoothing=amount,
                    reduction="sum",
                )
                / (labels[:, 1:] != -100).sum()
            )

    reference = copy.deepcopy(model)
    trainer = trainer_for(reference, windows, tmp_path, optim="sgd")
    trainer.__class__ = Smoothed
    trainer.train()
    ours = trained(model, windows, tmp_path, [LabelSmoothing(amount=amount)], optim="sgd")
    assert_same(weights(reference), ours, 1e-6)


@pytest.mark.parametrize("regularizer", [LabelSmoothing(amount=0), WeightDecay(rate=0), Dropout()])
def test_strength_zero_equals_absent(model, windows, tmp_path, regularizer):
    without = trained(model, windows, tmp_path, [], True)
    assert_same(without, trained(model, windows, tmp_path, [regularizer], True))


def test_no_penalty_in_evaluation(model, windows, tmp_path):
    model.eval()
    batch = windows.collate([windows[0], windows[2]])
    trainer = trainer_for(model, windows, tmp_path)
    rows_free = {key: value for key, value in batch.items() if key != "row_index"}
    with torch.no_grad():
        before = trainer.compute_loss(model, dict(rows_free))
        attach(trainer, [LabelSmoothing(amount=0.3)])
        after = trainer.compute_loss(model, dict(rows_free))
    assert torch.equal(before, after)


def test_weight_decay_reaches_matrices_and_not_vectors(model, windows, tmp_path):
    trainer = attach(trainer_for(model, windows, tmp_path), [WeightDecay(rate=0.5)])
    trainer.create_optimizer()
    decay = {
        id(p): group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.5 if parameter.ndim == 2 else 0.0), name
    assert len(decay) == len(list(model.parameters()))


def test_weight_decay_is_decoupled(model, windows, tmp_path):
    """One step from the same gradient: exactly rate * learning rate * weight apart."""
    plain = trained(model, windows, tmp_path, [WeightDecay(rate=0)], True, steps=1)
    decayed = trained(model, windows, tmp_path, [WeightDecay(rate=0.5)], True, steps=1)
    start = weights(model)
    for name, value in plain.items():
        expected = value - 0.5 * 1e-2 * start[name] if value.ndim == 2 else value
        assert torch.allclose(decayed[name], expected, atol=1e-6), name


def test_an_infinite_loss_stops_and_names_the_rows(model, windows, tmp_path):
    with torch.no_grad():
        model.get_input_embeddings().weight[windows[5]["input_ids"][0]] = float("nan")
    trainer = attach(trainer_for(model, windows, tmp_path), [], logit_free=True)
    with pytest.raises(TrainingDiverged, match=r"at step 1, rows \[0, 1, 2\]"):
        trainer.train()


def test_unsupported_set_ups_are_errors_before_the_first_step(model, windows, tmp_path):
    trainer = attach(trainer_for(model, windows, tmp_path), [])
    with pytest.raises(UserError, match="attached already"):
        attach(trainer, [])
    with pytest.raises(UserError, match="WeightDecay is given twice"):
        attach(trainer_for(model, windows, tmp_path), [WeightDecay(), WeightDecay(rate=1)])
    smoothed = trainer_for(model, windows, tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(UserError, match="label_smoothing_factor"):
        attach(smoothed, [LabelSmoothing()])


def test_set_ups_that_would_do_nothing_or_fail_later_are_refused(model, windows, tmp_path):
    def built():
        return copy.deepcopy(model)

    arguments = trainer_for(model, windows, tmp_path).args
    late = Trainer(
        model_init=built, args=arguments, train_dataset=windows, data_collator=windows.collate
    )
    with pytest.raises(UserError, match="model_init, which builds another model"):
        attach(late, [WeightDecay()])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    given = Trainer(
        model=model,
        args=arguments,
        train_dataset=windows,
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer)),
    )
    with pytest.raises(UserError, match=r"pass optimizers=\(optimizer, None\)"):
        attach(given, [WeightDecay()])
    half = trainer_for(copy.deepcopy(model).to(torch.bfloat16), windows, tmp_path)
    with pytest.raises(UserError, match=r"SAM changes weights by less than bfloat16 holds"):
        attach(half, [SAM()])
    newer = "activation_checkpointing_kwargs" in inspect.signature(TrainingArguments).parameters
    name = f"{'activation' if newer else 'gradient'}_checkpointing_kwargs"
    reentrant = trainer_for(model, windows, tmp_path, **{name: {"use_reentrant": True}})
    with pytest.raises(UserError, match=f"SMART differentiates to inputs.* set {name}="):
        attach(reentrant, [SMART()])


def test_an_optimizer_asked_for_early_is_grouped_once(model, windows, tmp_path):
    trainer = attach(trainer_for(model, windows, tmp_path, steps=1), [LayerDecay(factor=0.5)])
    trainer.create_optimizer()
    rates = sorted({group["lr"] for group in trainer.optimizer.param_groups})
    trainer.train()
    assert sorted({group["lr"] for group in trainer.optimizer.param_groups}) == rates


def test_a_given_optimizer_is_grouped_too(model, windows, tmp_path):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = trainer_for(model, windows, tmp_path, steps=1)
    trainer.optimizer = optimizer
    attach(trainer, [LayerDecay(factor=0.5)])
    trainer.train()
    assert len({group["lr"] for group in optimizer.param_groups}) > 1


def test_averages_are_what_a_trainer_evaluates_predicts_and_saves(model, windows, tmp_path):
    trainer = attach(trainer_for(model, windows, tmp_path), [EMA(decay=0.5)])
    trainer.train()
    last = weights(model)
    batch = [{k: v for k, v in windows[i].items() if k != "row_index"} for i in range(4)]
    measured = trainer.evaluate(batch)["eval_loss"]
    assert trainer.predict(batch).metrics["test_loss"] == measured
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert any(not torch.equal(value, last[name]) for name, value in weights(saved).items())
    assert_same(weights(model), last)
    again = trainer_for(saved, windows, tmp_path)
    assert again.evaluate(batch)["eval_loss"] == pytest.approx(measured, rel=1e-6)


def test_a_checkpoint_without_the_state_is_refused(model, windows, tmp_path):
    trainer_for(model, windows, tmp_path, steps=2, save_strategy="steps", save_steps=2).train()
    trainer = attach(trainer_for(model, windows, tmp_path), [EMA()])
    with pytest.raises(UserError, match="holds no state of EMA"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_weights_are_put_back_before_they_are_averaged(model, windows, tmp_path):
    """Whatever the order in the list: outside the child nothing moves, in the average neither."""
    child = ChildTuning(mode="task", share=0.2, fisher_steps=1)
    regularizers = [EMA(decay=0.1), WeightDecay(rate=0.9), child]
    start = weights(model)
    trainer = attach(trainer_for(model, windows, tmp_path), regularizers)
    trainer.train()
    with trainer._heldout.evaluation_weights():
        unmoved = sum((value == start[n]).sum().item() for n, value in weights(model).items())
    total = sum(value.numel() for value in start.values())
    assert unmoved >= 0.75 * total


def test_the_cost_in_words():
    assert total_cost([]).startswith("Plain: 1 forward, 1 backward per step")
    both = total_cost([WeightDecay(), LabelSmoothing()])
    assert both == "Weight decay + Label smoothing: 1 forward, 1 backward per step"


def test_one_object_serves_two_runs_as_two_objects_would(model, windows, tmp_path):
    def run(regularizer, other=None):
        first, second = copy.deepcopy(model), copy.deepcopy(model)
        trainers = [
            attach(trainer_for(each, windows, tmp_path), [used])
            for each, used in ((first, regularizer), (second, other or regularizer))
        ]
        found = []
        for trainer in trainers:  # both are attached before the first trains
            trainer.train()
            with trainer._heldout.evaluation_weights():
                found.append(weights(trainer.model))
        return found

    first, second = run(EMA(decay=0.5))
    assert_same(first, second)
    for one, other in zip(run(EMA(decay=0.5), EMA(decay=0.5)), (first, second), strict=True):
        assert_same(one, other)


def test_encoder_decoders_keep_their_own_loss(tmp_path):
    config = T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0,
        decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    rows = [{"input_ids": torch.arange(3, 9), "labels": torch.arange(4, 8)}] * 4
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True,
        save_strategy="no", logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip

    def trainer():
        return Trainer(model=copy.deepcopy(model), args=arguments, train_dataset=rows)

    for regularizers, logit_free in (([LabelSmoothing(amount=0.1)], False), ([], True)):
        with pytest.raises(UserError, match=r"T5ForConditionalGeneration \(encoder-decoder\) comp"):
            attach(trainer(), regularizers, logit_free=logit_free)
    plain = trainer()
    plain.train()
    decayed = attach(trainer(), [WeightDecay(rate=0.0)])
    decayed.train()
    assert_same(weights(plain.model), weights(decayed.model))


def test_what_compiles_shards_or_replaces_the_loss_is_refused_by_name(
    model, windows, tmp_path, monkeypatch
):
    smoothing, decay = LabelSmoothing(amount=0.1), WeightDecay(rate=0.1)

    def refused(words, regularizer, **options):
        trainer = trainer_for(model, windows, tmp_path)
        for name, value in options.items():
            setattr(trainer if name.startswith("is_") else trainer.args, name, value)
        with pytest.raises(UserError, match=words):
            attach(trainer, [regularizer])
        return trainer

    refused("does not support DeepSpeed, which steps inside", decay, is_deepspeed_enabled=True)
    refused("does not support torch_compile, which would not see", decay, torch_compile=True)
    trainer = refused("not support use_liger_kernel here, whose", smoothing, use_liger_kernel=True)
    assert attach(trainer, [decay]) is trainer, "weights are decayed under any kernel"
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    refused("does not support a dynamo backend of accelerate", decay)
