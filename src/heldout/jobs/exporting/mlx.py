"""YAML for mlx-lm, ``mlx_lm.lora --config``: fine-tuning on the chips of Apple."""

from typing import Any

from heldout.jobs.exporting.counterparts import dropout, place_regularizers, weight_decay
from heldout.jobs.exporting.recipe_to_export import RecipeToExport
from heldout.jobs.exporting.settings import TrainerSettings, exported_arguments, short
from heldout.jobs.exporting.yaml_text import yaml_text

_NATIVE = {"weight_decay": weight_decay, "dropout": dropout}
_PLACES = {
    **{f"{name}_proj": f"self_attn.{name}_proj" for name in "qkvo"},
    **{f"{name}_proj": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
_NOTES = {
    "text": "rows: text",
    "completion": "rows: mlx-lm puts the chat template around prompt and completion, heldout does "
    "not: measure what it trains with heldout on conversations of those two",
    "conversation": "rows: mask_prompt counts the last answer of a conversation alone; make each "
    "answer a row of its own where earlier ones are to be learned",
}


def snippet(source: RecipeToExport) -> str:
    """YAML for ``mlx_lm.lora --config``, in whose folder train.jsonl and valid.jsonl lie."""
    found = exported_arguments(source, carried=("train.report_to", "model.load_in"))
    place_regularizers(source, found, native=_NATIVE, attaches=False)
    recipe, train = source.recipe, source.recipe.train
    found.notes += [
        _NOTES[source.kind],
        f"train.max_grad_norm={train.max_grad_norm:g}: no counterpart, gradients are not shortened",
        "batches are of rows of like length, and rows that fill none are left out",
        "the last checkpoint is the result: keep the one of the lowest Val loss, in adapters/",
    ]
    table: dict[str, Any] = {
        "model": source.model,
        "train": True,
        "data": ".",
        "fine_tune_type": _tuned(source, found),
        "num_layers": -1,
        "mask_prompt": source.kind != "text",
        "batch_size": train.micro_batch_size,
        "grad_accumulation_steps": recipe.accumulation_steps,
        **_length(source, found),
        "val_batches": -1,
        "max_seq_length": recipe.data.max_length,
        "optimizer": "adamw",
        "optimizer_config": {
            "adamw": {
                "betas": [0.9, train.adam_beta2],
                "weight_decay": found.train.get("weight_decay", 0.0),
                "bias_correction": True,  # off by itself
            }
        },
        "grad_checkpoint": recipe.model.gradient_checkpointing,
        "seed": train.seed,
        "adapter_path": "adapters",
    }
    if train.optimizer == "schedule_free":
        found.notes.append("train.optimizer=schedule_free: no counterpart, adamw instead")
    if train.precision != "auto":
        found.notes.append(f"train.precision={train.precision}: as the weights of the model are")
    if recipe.model.load_in:
        found.notes.append(
            f"model.load_in={recipe.model.load_in}: give a model that mlx_lm.convert -q has made"
        )
    if recipe.model.trust_remote_code:
        table["trust_remote_code"] = True
    if train.report_to:
        table["report_to"] = ",".join(train.report_to)
    if found.lora:
        table["lora_parameters"] = _adapter(found)
    return yaml_text(source, found, "mlx-lm", table)


def _tuned(source: RecipeToExport, found: TrainerSettings) -> str:
    kind = source.recipe.model.adapter
    if not found.lora:
        return "full"
    if kind in ("pissa", "olora"):
        found.notes.append(f"model.adapter={kind}: no counterpart, a plain adapter instead")
    return "dora" if kind == "dora" else "lora"


def _adapter(found: TrainerSettings) -> dict[str, Any]:
    rank, alpha = found.lora["r"], found.lora["lora_alpha"]
    rooted = found.lora.get("use_rslora", False)
    adapter = {
        "rank": rank,
        "scale": short(alpha / (rank**0.5 if rooted else rank)),
        "dropout": found.lora["lora_dropout"],
    }
    targets = found.lora["target_modules"]
    if targets != "all-linear":
        adapter["keys"] = [_PLACES.get(name, name) for name in targets]
    return adapter


def _length(source: RecipeToExport, found: TrainerSettings) -> dict[str, Any]:
    """Iterations are micro-batches there, updates those over the accumulation."""
    recipe, train = source.recipe, source.recipe.train
    rate: Any = source.learning_rate or "LEARNING_RATE"
    per_epoch: Any = source.steps_per_epoch
    if per_epoch is None:
        found.notes.append(
            f"iters, steps_per_eval: train.max_epochs={short(source.epochs)} and "
            f"eval.per_epoch={short(recipe.eval.per_epoch)} times rows / {train.micro_batch_size}"
        )
        updates: Any = "UPDATES"
        length = {"iters": "ITERS", "steps_per_eval": "EVERY", "save_every": "EVERY"}
    else:
        updates = max(1, round(source.epochs * per_epoch))
        every = max(1, round(per_epoch / recipe.eval.per_epoch)) * recipe.accumulation_steps
        length = {
            "iters": updates * recipe.accumulation_steps,
            "steps_per_eval": every,
            "save_every": every,
        }
    name, *arguments = {
        "constant": ["step_decay", rate, 1.0, 1],  # by 1 each step: it stays
        "linear": ["linear_schedule", rate, 0.0, updates],
        "cosine": ["cosine_decay", rate, updates],
    }[train.schedule]
    schedule = {"name": name, "warmup": found.train["warmup_steps"], "arguments": arguments}
    return {**length, "learning_rate": rate, "lr_schedule": schedule}
