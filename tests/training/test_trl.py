"""TRL's trainers, whose loss, batches and counters are their own."""

import copy
import inspect
import warnings

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from heldout.core.errors import UserError
from heldout.core.regularizer import Regularizer, TokenSum
from heldout.regularizers.dropout import Dropout
from heldout.regularizers.goldfish import Goldfish
from heldout.regularizers.label_smoothing import LabelSmoothing
from heldout.regularizers.neftune import NEFTune
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.attach import attach

# TRL 1.16 sets options that transformers 5.23 has renamed: theirs to mend.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`gradient_checkpointing.*is deprecated:FutureWarning"
)

# Row lengths as unequal as in real data: a mean of means would be wrong.
TEXTS = ("Lists. ", "The with statement wraps a block. ", "A for loop goes on. " * 4)
TEXT = [{"text": TEXTS[i % 3] + str(i)} for i in range(16)]
COMPLETION = [
    {"prompt": TEXTS[(i + 1) % 3], "completion": TEXTS[i % 3] + str(i)} for i in range(16)
]
CHAT = [
    {
        "messages": [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
    }
    for row in COMPLETION
]
GENERATION = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
)
PLAIN = {
    "max_steps": 3,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "use_cpu": True,
    "bf16": False,
    "dataloader_pin_memory": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 1,
}


@pytest.fixture(autouse=True)
def no_progress_bars():
    import datasets

    datasets.disable_progress_bars()


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


@pytest.fixture
def sft(model, tiny_tokenizer, tmp_path):
    """A trainer of a copy of the model; attached only if regularizers are given."""

    def build(regularizers=None, rows=TEXT, *, logit_free=False, lora=False, **options):
        options = {"optim": "sgd", "max_length": 64, **PLAIN, **options}
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = GENERATION
        torch.manual_seed(0)
        trainer = SFTTrainer(
            model=copy.deepcopy(model),
            args=SFTConfig(output_dir=str(tmp_path), **options),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows[:6]),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
        )
        if regularizers is not None:
            attach(trainer, regularizers, logit_free=logit_free)
        return trainer

    return build


def trained(trainer):
    trainer.train()
    return {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}


def difference(one, other):
    return max((one[name] - other[name]).abs().max().item() for name in one)


BATCHES = {
    "padded": {"per_device_train_batch_size": 4},
    "padded, accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "packed": {"per_device_train_batch_size": 2, "packing": True},
    "packed, accumulated": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "packing": True,
    },
    "wrapped": {"packing": True, "packing_strategy": "wrapped", "per_device_train_batch_size": 2},
    "padding-free": {"padding_free": True, "max_length": None, "per_device_train_batch_size": 4},
}


QUICK = "packed, accumulated"


def slow_but_for(quick, cases):
    """Parameters of a test, of which one case alone is among the quick ones."""
    return [
        pytest.param(*case, id=name, marks=() if name == quick else pytest.mark.slow)
        for name, case in cases.items()
    ]


@pytest.mark.parametrize(
    "options", slow_but_for(QUICK, {name: (options,) for name, options in BATCHES.items()})
)
def test_the_chunked_loss_is_that_of_trl(sft, options):
    plain = trained(sft(**options))
    assert difference(plain, trained(sft([], **options))) == 0
    ours = sft([LabelSmoothing(amount=0)], **options)
    assert difference(plain, trained(ours)) < 1e-7
    start = sft(**options).model.state_dict()
    assert difference(plain, start) > 1e-4


@pytest.mark.parametrize(
    ("rows", "options"),
    slow_but_for(
        "assistant",
        {
            "completion": (COMPLETION, {}),
            "completion, packed": (COMPLETION, {"packing": True, "max_length": 128}),
            "assistant": (CHAT, {"assistant_only_loss": True, "max_length": 128}),
        },
    ),
)
def test_only_what_trl_scores_is_scored(sft, rows, options):
    plain = trained(sft(None, rows, **options))
    masked = next(iter(sft(None, rows, **options).get_train_dataloader()))["labels"]
    assert (masked[:, 1:] == -100).any(), "the case must mask something"
    assert difference(plain, trained(sft([], rows, logit_free=True, **options))) < 1e-7


@pytest.mark.parametrize("regularizer", [LabelSmoothing(amount=0), Goldfish(drop_every=10**9)])
@pytest.mark.parametrize("num_masked", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_step_without_a_scored_token_adds_nothing(sft, regularizer, num_masked):
    """One masked micro-batch of four, and a whole masked window."""
    ids = [5, 6, 7, 8]
    rows = [{"input_ids": ids, "labels": [-100] * 4 if i < num_masked else ids} for i in range(8)]
    options = {
        **BATCHES["padded, accumulated"],
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 4,
        "max_steps": 2,
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    plain = trained(sft(None, rows, **options))
    ours = trained(sft([regularizer], rows, logit_free=True, **options))
    assert difference(plain, ours) < 1e-7


class Twice(Regularizer):
    """The task loss a second time."""

    def extra_loss(self, passes, batch):
        return TokenSum(passes.again(same_dropout=True).cross_entropy())


@pytest.mark.parametrize("name", ["packed, accumulated", "padded, accumulated"])
def test_an_added_loss_weighs_as_it_says(sft, name):
    options = BATCHES[name]
    doubled = trained(sft([Twice()], **{**options, "max_steps": 1}))
    faster = trained(sft(**{**options, "max_steps": 1, "learning_rate": 2e-2}))
    assert difference(doubled, faster) < 1e-7


class Again(Regularizer):
    """The gradient computed three times, of which the last is taken."""

    def around_gradient(self, model, gradient, step):
        for _ in range(2):
            gradient()
            model.zero_grad()
        return gradient()


@pytest.mark.parametrize("logit_free", [False, True])
@pytest.mark.parametrize("name", ["packed, accumulated", "padded, accumulated"])
def test_a_gradient_computed_again_is_the_same(sft, name, logit_free):
    again = trained(sft([Again()], logit_free=logit_free, **BATCHES[name]))
    assert difference(trained(sft(**BATCHES[name])), again) < 1e-7


@pytest.mark.parametrize("regularizer", [[LabelSmoothing()], [Again()], []], ids=str)
def test_tokens_are_counted_once(sft, regularizer):
    def counted(trainer):
        trainer.train()
        trainer.evaluate()
        return trainer.state.log_history[-1]["eval_num_tokens"]

    options = BATCHES["packed, accumulated"]
    assert counted(sft(regularizer, **options)) == counted(sft(**options)) > 0


@pytest.mark.parametrize("lora", [pytest.param(False, marks=pytest.mark.slow), True])
def test_regularizers_work_under_its_defaults(sft, lora):
    """Gradient checkpointing and bf16 autocast are on by default."""
    options = {"optim": "adamw_torch", "packing": True, "lora": lora, "bf16": True}
    assert sft(**options).args.gradient_checkpointing
    plain = trained(sft(**options))
    for regularizer in (LabelSmoothing(amount=0.3), WeightDecay(rate=5.0), Dropout(hidden=0.3)):
        other = trained(sft([regularizer], **options))
        assert all(torch.isfinite(p).all() for p in other.values())
        assert difference(plain, other) > 1e-4, regularizer


def test_evaluation_is_free_of_penalties(sft):
    plain = sft().evaluate()["eval_loss"]
    attached = sft([LabelSmoothing(amount=0.5), Dropout(hidden=0.5)])
    assert attached.evaluate()["eval_loss"] == plain


def test_another_loss_is_refused_before_the_first_step(sft):
    with pytest.raises(UserError, match=r'dft.*use loss_type="nll"'):
        sft([LabelSmoothing()], loss_type="dft")
    trained(sft([WeightDecay()], loss_type="dft"))
    with warnings.catch_warnings():  # newer transformers tell that it will go
        warnings.filterwarnings("ignore", ".*label_smoothing_factor", FutureWarning)
        trainer = sft(label_smoothing_factor=0.1)
    with pytest.raises(UserError, match=r"use LabelSmoothing\(amount=...\)"):
        attach(trainer, [], logit_free=True)

    with pytest.raises(UserError, match="neftune_noise_alpha"):
        sft([NEFTune()], neftune_noise_alpha=5.0)

    class Own(SFTTrainer):
        def compute_loss(self, *args, **kwargs):
            return 2 * super().compute_loss(*args, **kwargs)

    trainer = sft()
    trainer.__class__ = Own
    with pytest.raises(UserError, match="Own computes a loss of its own, which logit_free=True"):
        attach(trainer, [], logit_free=True)


def test_a_mixture_of_experts_keeps_its_balance(sft, model):
    from transformers import MixtralConfig, MixtralForCausalLM

    config = model.config
    experts = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=config.vocab_size,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=4,
            pad_token_id=config.pad_token_id,
            bos_token_id=None,
            eos_token_id=config.eos_token_id,
        )
    )
    model.__class__, model.__dict__ = type(experts), experts.__dict__
    settable = "router_aux_loss_coef" in inspect.signature(SFTConfig).parameters  # newer TRL

    def first_gradients(regularizers, weight):
        if not settable:
            model.config.output_router_logits, model.config.router_aux_loss_coef = True, weight
            model.router_aux_loss_coef = weight
        trainer = sft(**({"router_aux_loss_coef": weight} if settable else {}))
        assert trainer.aux_loss_enabled == (weight > 0 or not settable)
        attach(trainer, regularizers)
        found = {}

        class Keep(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, **kwargs):
                for name, parameter in trainer.model.named_parameters():
                    if not found.get("done") and parameter.grad is not None:
                        found[name] = parameter.grad.clone()
                found["done"] = torch.ones(())

        trainer.add_callback(Keep())
        trainer.train()
        return found

    theirs = first_gradients([], 0.5)
    ours = first_gradients([LabelSmoothing(amount=1e-9)], 0.5)
    without = first_gradients([LabelSmoothing(amount=1e-9)], 0.0)
    gates = [name for name in theirs if "gate.weight" in name]
    assert gates
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    assert any((theirs[name] - without[name]).abs().max() > 1e-3 for name in gates)


@pytest.fixture
def dpo(model, tiny_tokenizer, tmp_path):
    def build():
        rows = [
            {"prompt": TEXTS[1], "chosen": TEXTS[i % 3], "rejected": f"No. {i}"} for i in range(8)
        ]
        return DPOTrainer(
            model=copy.deepcopy(model),
            args=DPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=2, **PLAIN),
            train_dataset=Dataset.from_list(rows),
            processing_class=copy.deepcopy(tiny_tokenizer),
        )

    return build


def test_preference_training_takes_what_leaves_its_loss_alone(dpo):
    with pytest.raises(UserError, match="DPOTrainer computes a loss of its own, which LabelSm"):
        attach(dpo(), [LabelSmoothing()])
    plain = trained(dpo())
    assert difference(plain, trained(attach(dpo(), [Again()]))) < 1e-7
    assert difference(plain, trained(attach(dpo(), [WeightDecay(rate=5.0)]))) > 1e-4


def test_training_on_generations_takes_what_works_on_weights(model, tiny_tokenizer, tmp_path):
    def build():
        return GRPOTrainer(
            model=copy.deepcopy(model),
            args=GRPOConfig(
                output_dir=str(tmp_path),
                num_generations=2,
                per_device_train_batch_size=2,
                max_completion_length=4,
                **{**PLAIN, "max_steps": 1},
            ),
            reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
            train_dataset=Dataset.from_list([{"prompt": text} for text in TEXTS]),
            processing_class=copy.deepcopy(tiny_tokenizer),
        )

    with pytest.raises(UserError, match="Again computes the gradient of a batch again"):
        attach(build(), [Again()])
    trainer = attach(build(), [WeightDecay(rate=5.0)])
    assert difference(trained(trainer), model.state_dict()) > 1e-4
