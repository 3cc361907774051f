"""What is judged of an architecture: each verdict is right, a refusal with its reason, or a fault.

Verdicts: ``right`` or ``effective``; ``refused: REASON``; ``traceback: ERROR``; anything else says
what is wrong.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from decaying import decayed_wrongly
from dropping import dropped_attention, dropped_embedding, dropped_heads, dropped_hidden
from tiny_architectures import tiny_model
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.jobs.kit.prepare import prepare
from heldout.lm.flat_trial import reason_for_padding
from heldout.lm.generate import continued_ids
from heldout.lm.layers import decoder_layers
from heldout.lm.load import LoadedModel
from heldout.lm.logit_path import logit_path
from heldout.lm.scored_loss import scored_loss, scored_nats
from heldout.regularizers.layer_drop import LayerDrop
from heldout.training.attach import attach
from heldout.training.steps import Steps

RATE = 0.1  # of the one step of plain descent that a Trainer takes


def judged(model_type: str) -> dict[str, str]:
    """All verdicts on one architecture, each on a fresh model."""
    return {name: _verdict(judge, model_type) for name, judge in JUDGES.items()}


def _verdict(judge: Callable[[Any], str], model_type: str) -> str:
    try:
        return judge(tiny_model(model_type))
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def batch() -> dict[str, torch.Tensor]:
    """Three rows (3, 12), one of them padded on the right, one with a prompt that is not scored."""
    generator = torch.Generator().manual_seed(3)
    input_ids = torch.randint(5, 90, (3, 12), generator=generator)
    attention_mask, labels = torch.ones_like(input_ids), input_ids.clone()
    labels[0, :4] = -100
    attention_mask[1, 8:], labels[1, 8:] = 0, -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def rows() -> list[dict[str, torch.Tensor]]:
    """Each row of the batch alone, without its padding."""
    whole = batch()
    lengths = whole["attention_mask"].sum(1)
    return [
        {name: tensor[place : place + 1, :length] for name, tensor in whole.items()}
        for place, length in enumerate(lengths)
    ]


def plain_loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy summed over scored tokens, from all logits."""
    arguments = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    logits_BTV = model(**arguments, use_cache=False).logits[:, :-1].float()
    targets_BT = inputs["labels"][:, 1:]
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum")


def padding_left_out(model: Any) -> str:
    """Whether rows of a batch go through the model without padding."""
    reason = reason_for_padding(model)
    return f"refused: {reason}" if reason else "right"


def loss_alone(model: Any) -> str:
    logit_path(model)
    with torch.no_grad():
        for row in rows():
            expected = plain_loss(model, row)
            for found in (scored_loss(model, row)[0], scored_nats(model, row)[0].sum()):
                if not torch.allclose(found, expected, rtol=1e-4, atol=1e-4):
                    return f"{found:.4f} nats for {expected:.4f}"
    return "right"


def loss_batched(model: Any) -> str:
    logit_path(model)
    with torch.no_grad():
        expected = sum(plain_loss(model, row) for row in rows())
        found = scored_loss(model, batch())[0]
    if not torch.allclose(found, expected, rtol=1e-3):
        return f"{found:.4f} nats in a batch for {expected:.4f} of its rows alone"
    return "right"


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    loss = plain_loss(model, batch()) / (batch()["labels"][:, 1:] != -100).sum()
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, found, strict=True) if g is not None}


def _compared(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> str:
    norm = sum(float(g.square().sum()) for g in expected.values()) ** 0.5
    apart = sum(float((found[n] - g).square().sum()) for n, g in expected.items()) ** 0.5
    if norm == 0 or apart > 1e-3 * norm:
        return f"gradient of norm {norm:.3g} is missed by {apart:.3g}"
    return "right"


def gradient_of_steps(model: Any) -> str:
    steps = Steps(model, [])
    with steps.attached():
        steps.gradient([batch()])
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.manual_seed(0)
    return _compared(found, _gradients(model.train()))


class _Rows(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return {name: tensor[place] for name, tensor in batch().items()}


def gradient_of_trainer(model: Any) -> str:
    expected = _gradients(model.train())
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=3,
            max_steps=1,
            learning_rate=RATE,
            optim="sgd",
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=_Rows())
        attach(trainer, [], logit_free=True)
        trainer.train()
    found = {n: (before[n] - p.detach()) / RATE for n, p in model.named_parameters()}
    return _compared(found, expected)


def layer_drop(model: Any) -> str:
    """Over ten steps each layer is skipped just when it is drawn, and then none of it runs."""
    steps = Steps(model, [LayerDrop(share=0.5, rising=False)])
    regularizer = steps.regularizers[0]
    layers = list(decoder_layers(model))
    ran = [0] * len(layers)

    def count(place: int) -> Callable[..., None]:
        return lambda *arguments: ran.__setitem__(place, ran[place] + 1)

    handles = [
        module.register_forward_pre_hook(count(place))
        for place, layer in enumerate(layers)
        for module in layer.children()
    ]
    num_skipped = 0
    with steps.attached():
        for step in range(10):
            steps.step, ran[:] = step, [0] * len(layers)
            model.zero_grad()
            steps.gradient([batch()])
            skipped = {at for at, value in regularizer._divisors.items() if value is None}
            num_skipped += len(skipped)
            if any((ran[at] == 0) != (at in skipped) for at in range(len(layers))):
                return f"layers {sorted(skipped)} were to be skipped, {ran} modules ran"
    for handle in handles:
        handle.remove()
    return "effective" if num_skipped else "no layer was skipped"


def decay(model: Any) -> str:
    wrong = decayed_wrongly(model)
    return f"wrongly decayed or left out: {', '.join(wrong[:3])}" if wrong else "right"


class _Tokenizer:
    bos_token_id = eos_token_id = chat_template = None
    pad_token_id = 0


@torch.no_grad()
def generation(model: Any) -> str:
    """Greedy text of a batch against the most likely token again and again, by whole calls."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter *= 4  # so that texts differ by prompt
    model.generation_config.eos_token_id = None
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(5, 90, (n,), generator=generator).tolist() for n in (9, 5, 9, 7, 3)]
    found, _ = continued_ids(model, _Tokenizer(), prompts, 5, batch_size=5)
    for prompt, written in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(5):
            ids_BT = torch.tensor([ids])
            mask_BT = torch.ones_like(ids_BT)
            logits = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
        if ids[len(prompt) :] != written:
            return f"writes {written} after a prompt for {ids[len(prompt) :]}"
    return "right"


@torch.no_grad()
def save_and_load(model: Any) -> str:
    inputs = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    torch.manual_seed(0)
    expected = model(**inputs, use_cache=False).logits
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        try:
            again = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            return "refused: AutoModelForCausalLM does not know the configuration it has saved"
    torch.manual_seed(0)
    found = again.float().eval()(**inputs, use_cache=False).logits
    return "right" if torch.allclose(found, expected, atol=1e-5) else "other logits once loaded"


def lora(model: Any) -> str:
    """Layers are found as `heldout fit` finds them, and their factors get a gradient."""
    adapted = prepare(LoadedModel(model, None, "tiny", None, 0), Recipe())
    steps = Steps(adapted, [])
    with steps.attached():
        steps.gradient([batch()])
    trained = [p for p in adapted.parameters() if p.requires_grad]
    return "right" if any(p.grad is not None and p.grad.any() for p in trained) else "no gradient"


JUDGES: dict[str, Callable[[Any], str]] = {
    "padding_left_out": padding_left_out,
    "loss_alone": loss_alone,
    "loss_batched": loss_batched,
    "gradient_steps": gradient_of_steps,
    "gradient_trainer": gradient_of_trainer,
    "dropout_hidden": dropped_hidden,
    "dropout_attention": dropped_attention,
    "dropout_heads": dropped_heads,
    "dropout_embedding": dropped_embedding,
    "layer_drop": layer_drop,
    "decay": decay,
    "generation": generation,
    "save_and_load": save_and_load,
    "lora": lora,
}
