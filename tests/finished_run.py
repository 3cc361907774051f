"""A run folder as a finished fit leaves it, without the training: real weights, rows of its own."""

import torch

from heldout.core.recipe import load_recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.kit.checkpoints import save_model
from heldout.lm.load import load_model

MODEL = "package:heldout"
ROWS = {
    "train": "The lighthouse keeper of Skerryvore counts seventeen grey seals at dawn.",
    "validation": "A retired clockmaker in Besancon repairs only pocket watches from 1882.",
    "test": "The ferry to Inishbofin leaves when the postmistress has had her second tea.",
}


def messages(kind, text):
    """One row's messages, its text in the last of them."""
    return {
        "text": ({"role": "text", "content": text},),
        "completion": (
            {"role": "prompt", "content": "Tell me of "},
            {"role": "completion", "content": text},
        ),
        "conversation": (
            {"role": "user", "content": "Tell me."},
            {"role": "assistant", "content": text},
        ),
    }[kind]


def finished_run(folder, *, kind="conversation", method="full", rows=None):
    """With the embedded model, its weights moved a little so that it differs from its base.

    ``rows``: texts of training rows; others have those of ``ROWS``.
    """
    run = Run.create(folder, load_recipe("lora", [f"model.method={method}"]))
    loaded = load_model(MODEL, device="cpu")
    run.write_json(
        "environment.json",
        {"versions": {"heldout": "0.1.0"}, "device": "cpu", "model": MODEL, "from_scratch": ""},
    )
    texts = {part: [text] for part, text in ROWS.items()} | ({"train": rows} if rows else {})
    for part, each in texts.items():
        found = [Row(7 + n, messages(kind, text), f"{part}-{n}") for n, text in enumerate(each)]
        run.write_rows(part, found)
    run.write_json(
        "data.json",
        {
            "source": str(folder / "somebody" / "rows.jsonl"),
            "kind": kind,
            "mode": "split",
            "rows": {part: len(each) for part, each in texts.items()},
            "groups": {part: len(each) for part, each in texts.items()},
        },
    )
    run.write_json("samples.json", [{"part": "train", "prompt": "The", "reference": ROWS["train"]}])
    save_model(_moved(loaded.model, method), loaded.tokenizer, run.best)
    run.write_status("complete")
    return run


def _moved(model, method):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if method == "lora":
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(
                r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
            )
            return get_peft_model(model, config)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.2 * weight.std() * torch.randn_like(weight) if weight.ndim > 1 else 0
    return model
