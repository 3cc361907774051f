"""What the tests over all regularizers build: parameters that do something, and on which model."""

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from heldout.core.discovery import build, entries_of


@dataclass(frozen=True)
class Case:
    parameters: dict[str, Any] = field(default_factory=dict)
    model: str = "lora"  # or "full", or "pissa": an adapter that begins as a part of its base
    trainer: bool = True  # works under attach(trainer) without someone who measures
    exact: bool = True  # one batch of four equals four micro-batches, on one process or on two
    beside: tuple[tuple[str, dict[str, Any]], ...] = ()  # other regularizers that it needs
    taught: bool = False  # by the model as it lies in its folder


DROPOUT = (("dropout", {"hidden": 0.3}),)

CASES = {
    "asam": Case(model="full"),
    "bregman_proximal_point": Case(),
    "child_tuning": Case({"mode": "task", "share": 0.3, "fisher_steps": 1}, model="full"),
    "child_tuning free": Case(model="full"),
    "confidence_penalty": Case(),
    "distillation": Case({"weight": 0.7, "temperature": 1.5}, taught=True),
    "domain_adversarial": Case(),
    "dropout": Case(
        {"hidden": 0.3, "attention": 0.2, "embedding": 0.1, "adapter": 0.2, "heads": 0.2}
    ),
    "early_stopping": Case(trainer=False),
    "ema": Case(),
    "free_lb": Case(model="full"),
    "goldfish": Case(),
    "gradient_noise": Case(),
    "gradual_unfreezing": Case({"steps_per_layer": 2}, model="full"),
    "kl_to_base": Case(model="full"),
    "kl_to_base reverse": Case({"reverse": True}),
    "kl_to_base of pissa": Case(model="pissa"),
    "l2_penalty": Case(),
    "l2_sp": Case(model="full"),
    "l2_sp coupled": Case({"decoupled": False}, model="full"),
    "l2_sp of pissa": Case(model="pissa"),
    "label_smoothing": Case(),
    "layer_decay": Case(),
    "layer_drop": Case({"share": 0.5}),
    "mixout": Case(model="full"),
    "neftune": Case(),
    "r_drop": Case(beside=DROPOUT),
    "rollback": Case(trainer=False),
    "sam": Case(),
    "small_batch_noise": Case(exact=False),
    "smart": Case(),
    "smart of all weights": Case(model="full"),
    "swa": Case({"start": 0.3}),
    "temperature": Case(model="full", trainer=False),
    "top_wrong_smoothing": Case(),
    "vat": Case(model="full"),
    "weight_decay": Case(),
    "wise_ft": Case(trainer=False),
    "z_loss": Case({"weight": 0.1}),
}


def plugin_of(name: str) -> str:
    """The regularizer of a case: "l2_sp" of "l2_sp coupled"."""
    return name.partition(" ")[0]


def case_names() -> list[str]:
    """All regularizers that are installed, and the further cases of some."""
    installed = [entry.name for entry in entries_of("regularizer")]
    return installed + [name for name in CASES if plugin_of(name) != name]


def case_of(name: str) -> Case:
    return CASES.get(name, Case())


def parameters_of(name, folder):
    """What the regularizer is built with; ``folder`` holds the model."""
    case = case_of(name)
    return {**case.parameters, "teachers": [str(folder)]} if case.taught else case.parameters


def build_case(name, folder):
    """The regularizer with parameters that do something, after those it needs beside it."""
    others = [build("regularizer", *other) for other in case_of(name).beside]
    return [*others, build("regularizer", plugin_of(name), parameters_of(name, folder))]


def load_case(name, folder):
    """A fresh model of the case's kind; its adapter already does something."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if case_of(name).model == "full":
        return model
    torch.manual_seed(0)
    if case_of(name).model == "pissa":
        config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights="pissa")
        return get_peft_model(model, config)
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.02)
    return model
