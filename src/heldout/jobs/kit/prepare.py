"""What a recipe makes of a loaded model: trained weights, LoRA layers, tied ends, regularizers."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed

from heldout.core.adapter_kinds import ADAPTERS
from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.jobs.kit.target import Target
from heldout.lm.load import LoadedModel


def prepare(loaded: LoadedModel, recipe: Recipe, *, is_scratch: bool = False) -> Any:
    """The model to train: with LoRA layers or whole, weights tied or untied as the recipe says."""
    model = loaded.model
    set_seed(recipe.train.seed)
    if recipe.model.tie_weights is not None:
        changed = tie(model, recipe.model.tie_weights)
        if changed and recipe.model.method == "lora" and not is_scratch:
            raise UserError(
                f"model.tie_weights={str(recipe.model.tie_weights).lower()} changes the model, and "
                "an adapter folder cannot hold that: use model.method=full."
            )
    if recipe.model.method == "full" or is_scratch:
        if recipe.model.adapter != "lora":
            raise UserError(
                f"model.adapter={recipe.model.adapter} needs an adapter, and all weights are "
                "trained: use model.method=lora, or leave it out."
            )
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model
    if isinstance(model, PeftModel):
        if recipe.model.adapter != "lora":
            raise UserError(
                f"model.adapter={recipe.model.adapter} is for a new adapter, and the model's own "
                "is trained on: leave it out, or give the base model."
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError("The adapter has no LoRA weights to go on with: use model.method=full.")
        return model
    _refuse_wide(model, recipe.model.lora_rank)
    all_linear = recipe.model.lora_targets == "all-linear"
    config = LoraConfig(
        r=recipe.model.lora_rank,
        lora_alpha=recipe.model.lora_alpha,
        exclude_modules=_not_for_lora(model) if all_linear else None,
        target_modules=recipe.model.lora_targets
        if all_linear
        else [name.strip() for name in recipe.model.lora_targets.split(",")],
        task_type="CAUSAL_LM",
        lora_dropout=0.0,
        **ADAPTERS[recipe.model.adapter],
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"model.lora_targets={recipe.model.lora_targets!r}: {error}") from None


def _refuse_wide(model: Any, rank: int) -> None:
    """UserError for a rank that no layer has: an adapter would be larger than what it adapts."""
    layers = (each for each in model.modules() if isinstance(each, torch.nn.Linear))
    widest = max((min(layer.weight.shape) for layer in layers), default=None)
    if widest is not None and rank > widest:
        raise UserError(
            f"model.lora_rank must be at most {widest}, the rank of this model's widest layer, got "
            f"{rank}: lower it, or train all weights with model.method=full."
        )


def _not_for_lora(model: Any) -> list[str] | None:
    """Linear layers whose weights a model's own code reads, past what PEFT would put around them.

    Those that are computed by blocks (DeepSeek V4), and the last one of a selective scan.
    """
    scans = {name for name, module in model.named_modules() if hasattr(module, "A_log")}
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and (
            "transformers.models" in type(module).__module__
            or (name.endswith(".out_proj") and name.removesuffix(".out_proj") in scans)
        )
    ]
    return found or None


def load_prepared(target: Target, recipe: Recipe) -> tuple[Any, Any]:
    """A fresh model to train, and its tokenizer."""
    loaded = target.load(recipe)
    model = prepare(loaded, recipe, is_scratch=bool(target.from_scratch))
    return model, loaded.tokenizer


def tie(model: Any, tied: bool) -> bool:
    """Share the output layer's weights with the input embedding, or give it a copy of its own.

    Returns whether anything changed.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    shared = head.weight is embedding.weight
    if tied and not shared:
        if head.weight.shape != embedding.weight.shape:
            raise UserError("model.tie_weights: input and output layers have different shapes.")
        head.weight = embedding.weight
    if not tied and shared:
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone())
    model.config.tie_word_embeddings = tied
    if not tied:
        model._tied_weights_keys = None
    return tied != shared


def regularizers_of(recipe: Recipe) -> list[Regularizer]:
    """Build the regularizers that the recipe names, in its order."""
    return [
        build("regularizer", name, parameters) for name, parameters in recipe.regularizers.items()
    ]
