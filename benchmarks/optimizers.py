"""Weight decay under every optimizer: what its card says, or a refusal that names the optimizer.

A Trainer with WeightDecay attached trains a task without a slope, so that decay alone moves the
weights, under every ``TrainingArguments.optim`` that can be built here, every optimizer of torch
and every one of pytorch_optimizer. What the median weight has lost after all steps, in the form
that is saved, is compared with ``1 - (1 - learning_rate * rate) ** steps``.

- ``decay_wrong``: optimizers under which training ran and a weight lost something else.
- ``as_said``: those under which it lost that; ``by_us`` of them only because we decay in their
  place; ``refused`` by name before the first step.
- ``wrong_before``: those that train, by ``weight_decay`` alone, to something else.
- ``built``: all of these; ``not_built`` could not be made here, each with the reason in the table.

Packages that transformers names (bitsandbytes, torchao, torch-optimi, grokadamw, galore-torch,
apollo-torch, lomo-optim) are used where they are installed.

    python benchmarks/optimizers.py [--write]
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_optimizer
import torch
from record import write_record
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from heldout.core.errors import UserError
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.attach import attach
from heldout.training.decay import DECAY
from heldout.training.two_forms import measured_form

MOST_WRONG = 0
"""``decay_wrong``: a user who asks for a decay of .1 gets it or is told, whatever the optimizer."""

TOLERANCE = 0.02
"""Of what decay takes away: beyond float32 rounding and far below the factors seen (.03 to 100)."""

RATE, DECAY_RATE, STEPS = 1e-3, 0.1, 30
SETTINGS = {"bsam": {"num_data": 16}, "ranger21": {"num_iterations": STEPS}}
"""What some constructors ask for beside the weights."""

Build = Callable[[Any], Any]  # model -> optimizer


class Flat(Trainer):
    """A task without a slope: every gradient is 0."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) * 0.0


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    return LlamaForCausalLM(config)


def optimizers() -> Iterator[tuple[str, str | Build]]:
    """(name, how it is asked for): by TrainingArguments, or built from a model."""
    for name in OptimizerNames:
        yield f"transformers {name.value}", name.value
    for key, kind in vars(torch.optim).items():
        is_one = isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
        if is_one and kind is not torch.optim.Optimizer:
            yield f"torch {key}", builder(kind, {})
    yield "torch SGD with momentum", builder(torch.optim.SGD, {"momentum": 0.9})
    for key in pytorch_optimizer.get_supported_optimizers():
        try:
            kind = pytorch_optimizer.load_optimizer(key)
        except Exception as error:  # of packages that it needs
            kind, reason = None, error
            yield f"pytorch_optimizer {key}", failing(reason)
            continue
        yield f"pytorch_optimizer {key}", builder(kind, SETTINGS.get(key, {}))


def builder(kind: Any, settings: dict[str, Any]) -> Build:
    """Asks for groups, as the Trainer makes them; Muon and its kin must be told of matrices."""

    def build(model: Any) -> Any:
        parameters = list(model.parameters())
        group: dict[str, Any] = {"params": parameters, "lr": RATE}
        ways: list[Callable[[], Any]] = [
            lambda: kind([group], lr=RATE, **settings),
            lambda: kind([{**group, "use_muon": False}], **settings),
            lambda: kind([group], **settings),
            lambda: kind(model, lr=RATE, **settings),
        ]
        first: Exception | None = None
        for way in ways:
            try:
                return way()
            except Exception as error:
                first = first or error
        assert first is not None
        raise first

    return build


def failing(error: Exception) -> Build:
    def build(model: Any) -> Any:
        raise error

    return build


def row_of(name: str, how: str | Build) -> dict[str, Any]:
    """What happens with WeightDecay attached, and by the optimizer's own ``weight_decay``."""
    try:
        own = lost(how, attached=False)[0]
    except Exception as error:
        return {"optimizer": name, "outcome": "not built", "why": one_line(error)}
    row = {"optimizer": name, "own": own}
    try:
        share, by_us = lost(how, attached=True)
    except UserError as error:
        return {**row, "outcome": "refused", "why": one_line(error)}
    right = abs(share - 1) <= TOLERANCE
    return {**row, "outcome": "as said" if right else "wrong", "share": share, "by_us": by_us}


def lost(how: str | Build, *, attached: bool) -> tuple[float, bool]:
    """What the median weight has lost, over what it was to lose; whether we decayed."""
    model = small_model()
    given = None if isinstance(how, str) else how(model)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=1,
            max_steps=STEPS,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            weight_decay=0.0 if attached else DECAY_RATE,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
            **by_name(how if isinstance(how, str) else ""),
        )
        ids = torch.arange(8)
        rows = [{"input_ids": ids, "labels": ids}] * STEPS
        trainer = Flat(model, arguments, train_dataset=rows, optimizers=(given, None))
        if attached:
            attach(trainer, [WeightDecay(rate=DECAY_RATE)])
        elif given is not None:
            for group in given.param_groups:
                group["weight_decay"] = DECAY_RATE
        weight = model.get_parameter("model.layers.0.mlp.up_proj.weight")
        before = weight.detach().double()
        trainer.train()
        with measured_form(trainer.optimizer):
            share = 1 - float((weight.detach().double() / before).median())
    by_us = any(DECAY in group for group in trainer.optimizer.param_groups)
    return share / (1 - (1 - RATE * DECAY_RATE) ** STEPS), by_us


def by_name(name: str) -> dict[str, Any]:
    """Those of low rank want to be told of their layers."""
    if not name:
        return {}
    of_low_rank = name.startswith(("galore", "apollo"))
    return {"optim": name, **({"optim_target_modules": ["mlp"]} if of_low_rank else {})}


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    table = []
    for name, how in optimizers():
        table.append(row_of(name, how))
        print(*table[-1].values(), flush=True)
    built = [row for row in table if row["outcome"] != "not built"]
    right = [row for row in built if row["outcome"] == "as said"]
    figures = {
        "decay_wrong": sum(row["outcome"] == "wrong" for row in built),
        "as_said": len(right),
        "by_us": sum(row["by_us"] for row in right),
        "refused": sum(row["outcome"] == "refused" for row in built),
        "wrong_before": sum(not abs(row["own"] - 1) <= TOLERANCE for row in built),
        "built": len(built),
        "not_built": len(table) - len(built),
    }
    print(figures)
    assert figures["decay_wrong"] <= MOST_WRONG, [r for r in built if r["outcome"] == "wrong"]
    if write:
        write_record("optimizers", figures, table=table, seeds=[0], data_sha256="")


if __name__ == "__main__":
    main()
