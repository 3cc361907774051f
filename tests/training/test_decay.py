"""Weight decay takes from a weight what its card says, under any optimizer, or is refused."""

import pytest
import pytorch_optimizer
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from heldout.core.errors import UserError
from heldout.regularizers.ema import EMA
from heldout.regularizers.kl_to_base import KLToBase
from heldout.regularizers.l2_sp import L2SP
from heldout.regularizers.layer_decay import LayerDecay
from heldout.regularizers.swa import SWA
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.attach import attach
from heldout.training.decay import decays_as_said, set_decay
from heldout.training.steps import Steps
from heldout.training.two_forms import measured_form

RATE, DECAY, STEPS = 1e-3, 0.1, 6
NAME = "model.layers.0.mlp.up_proj.weight"
BY_NAME = [
    "adamw_torch",
    "adamw_torch_fused",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
]
GIVEN = {
    "Adam": lambda groups: torch.optim.Adam(groups),
    "Adamax": lambda groups: torch.optim.Adamax(groups),
    "Adadelta": lambda groups: torch.optim.Adadelta(groups),
    "RAdam": lambda groups: torch.optim.RAdam(groups),
    "NAdam": lambda groups: torch.optim.NAdam(groups),
    "SGD with momentum": lambda groups: torch.optim.SGD(groups, momentum=0.9),
}


class Flat(Trainer):
    """A task without a slope: every gradient is 0, and only decay moves the weights."""

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs) * 0.0


def trainer_for(model, folder, kind=Flat, optimizer=None, **options):
    ids = torch.arange(3, 15)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **options,
    )
    rows = [{"input_ids": ids, "labels": ids}] * 16
    return kind(model, arguments, train_dataset=rows, optimizers=(optimizer, None))


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def kept_share(trainer, model):
    """What is left of a weight after training, in the form that is saved."""
    before = model.get_parameter(NAME).detach().clone()
    trainer.train()
    with measured_form(trainer.optimizer):
        return float((model.get_parameter(NAME).detach() / before).median())


def assert_as_said(share):
    taken = 1 - (1 - RATE * DECAY) ** STEPS
    assert abs((1 - share) - taken) < 0.02 * taken


@pytest.mark.parametrize("name", BY_NAME)
def test_by_name(name, model, tmp_path):
    trainer = attach(trainer_for(model, tmp_path, optim=name), [WeightDecay(rate=DECAY)])
    assert_as_said(kept_share(trainer, model))


@pytest.mark.parametrize("name", GIVEN)
def test_given(name, model, tmp_path):
    optimizer = GIVEN[name]([{"params": list(model.parameters()), "lr": RATE}])
    trainer = trainer_for(model, tmp_path, optimizer=optimizer)
    assert_as_said(kept_share(attach(trainer, [WeightDecay(rate=DECAY)]), model))


def test_the_usual_one_decays_by_itself_and_is_left_alone(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    before = {**optimizer.param_groups[0]}
    set_decay(optimizer)
    assert optimizer.param_groups[0] == before
    assert not optimizer._optimizer_step_pre_hooks


def test_each_group_keeps_its_rate_and_what_is_spared_stays(model, tmp_path):
    parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
    regularizers = [LayerDecay(factor=0.5), WeightDecay(rate=DECAY, embeddings=False)]
    trainer = attach(trainer_for(model, tmp_path, optim="rmsprop"), regularizers)
    trainer.train()
    shares = {
        n: 1 - float(p.detach().norm() / parameters[n].norm()) for n, p in model.named_parameters()
    }
    upper, lower = shares["model.layers.1.mlp.up_proj.weight"], shares[NAME]
    assert lower == pytest.approx(upper / 2, rel=0.05)
    assert upper > 0
    assert shares["model.norm.weight"] == shares["model.embed_tokens.weight"] == 0


def test_a_resumed_training_goes_on_with_it(tiny_model_dir, tmp_path):
    def run(folder, steps, resume=None):
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
        trainer = trainer_for(model, folder, Trainer, optim="rmsprop")
        trainer.args.max_steps, trainer.args.save_strategy = steps, "steps"
        trainer.args.save_steps = 2
        attach(trainer, [WeightDecay(rate=DECAY)])
        trainer.train(resume_from_checkpoint=resume)
        return model.get_parameter(NAME).detach().clone()

    whole = run(tmp_path / "a", 4)
    run(tmp_path / "b", 2)
    assert torch.equal(run(tmp_path / "b", 4, str(tmp_path / "b" / "checkpoint-2")), whole)


@pytest.mark.parametrize("kind", ["SparseAdam", "Ranger"])
def test_what_cannot_be_had_is_refused_by_name(kind, model, tmp_path):
    optimizers = {"SparseAdam": torch.optim.SparseAdam, "Ranger": pytorch_optimizer.Ranger}
    optimizer = optimizers[kind]([{"params": list(model.parameters()), "lr": RATE}])
    trainer = attach(trainer_for(model, tmp_path, optimizer=optimizer), [WeightDecay(rate=DECAY)])
    with pytest.raises(UserError, match=f"takes away, and {kind} does something else with it"):
        trainer.train()


class Slow(torch.optim.SGD):
    """Goes back, every fifth step, half the way to where it was: a second copy of the weights."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            for weight in group["params"]:
                slow = self.state[weight].setdefault("slow", torch.ones_like(weight))
                if group["count"] % 5 == 0:
                    weight.data.lerp_(slow, 0.5)


def test_a_copy_that_is_not_decayed_shows(model):
    optimizer = Slow(model.parameters(), lr=RATE, weight_decay=DECAY)
    assert not decays_as_said(optimizer)
    with pytest.raises(UserError, match="Slow does something else with it"):
        set_decay(optimizer)


def test_in_a_loop_by_hand_it_is_refused_at_the_first_step(model):
    steps = Steps(model, [WeightDecay(rate=DECAY)])
    steps.done(torch.optim.AdamW(steps.parameter_groups(RATE)))
    again = Steps(model, [WeightDecay(rate=DECAY)])
    with pytest.raises(UserError, match="Adagrad does something else with it: use adamw_torch"):
        again.done(torch.optim.Adagrad(again.parameter_groups(RATE)))


@pytest.mark.parametrize("regularizer", [EMA(), SWA(), L2SP()], ids=["EMA", "SWA", "L2SP"])
def test_weights_of_two_forms_are_not_averaged(regularizer, model, tmp_path):
    name = type(regularizer).__name__
    with pytest.raises(UserError, match=rf"{name} works on .*schedule_free_adamw\"\) keeps two"):
        attach(trainer_for(model, tmp_path, optim="schedule_free_adamw"), [regularizer])
    from schedulefree import AdamWScheduleFree

    given = AdamWScheduleFree(model.parameters(), lr=RATE)
    trainer = attach(trainer_for(model, tmp_path, optimizer=given), [regularizer])
    with pytest.raises(UserError, match=rf"{name} works on .* AdamWScheduleFree keeps two forms"):
        trainer.train()


def test_what_is_saved_is_the_average(model, tmp_path):
    trainer = trainer_for(model, tmp_path, Trainer, optim="schedule_free_adamw", warmup_steps=2)
    attach(trainer, [KLToBase()])
    trainer.train()
    gradient_point = model.get_parameter(NAME).detach().clone()
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").get_parameter(NAME)
    assert torch.equal(model.get_parameter(NAME), gradient_point)
    assert not torch.equal(saved, gradient_point)
    trainer.optimizer.eval()
    assert torch.equal(model.get_parameter(NAME), saved)


def test_groups_that_differ_in_more_than_rate_and_decay_stay_apart(model):
    first, second = list(model.parameters())[:3], list(model.parameters())[3:]
    groups = [
        {"params": first, "lr": RATE, "betas": (0.9, 0.99)},
        {"params": second, "lr": RATE, "betas": (0.8, 0.95)},
    ]
    found = Steps(model, [WeightDecay(rate=DECAY)]).regrouped(groups)
    betas = {id(p): group["betas"] for group in found for p in group["params"]}
    assert [betas[id(p)] for p in first] == [(0.9, 0.99)] * len(first)
    assert [betas[id(p)] for p in second] == [(0.8, 0.95)] * len(second)
    groups[1]["betas"] = (0.9, 0.99)
    same = Steps(model, [WeightDecay(rate=DECAY, vectors=True)]).regrouped(groups)
    assert len(same) == 1, "groups without a difference share one"


@pytest.mark.parametrize("name", ["lomo", "adalomo", "galore_adamw_layerwise"])
def test_what_steps_inside_backward_is_refused(name, model, tmp_path):
    with pytest.raises(UserError, match=rf'optim="{name}"\) steps inside backward\(\)'):
        attach(trainer_for(model, tmp_path, optim=name), [WeightDecay(rate=DECAY)])
