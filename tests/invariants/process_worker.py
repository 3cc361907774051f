"""Train with every regularizer, alone or as one of two processes; weights go to a file.

python process_worker.py MODE MODEL_FOLDER OUTPUT [NAME...], with MODE one of single, ddp, fsdp (a
loop on Steps), trainer_single and trainer_ddp (transformers.Trainer with attach).
"""

import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoTokenizer, Trainer, TrainingArguments

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from cases import CASES, build_case, case_of, load_case

from heldout.core.row import Row
from heldout.training.attach import attach
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset

TEXTS = (
    "The with statement wraps a block.",
    "Lists.",
    "A for loop goes through an iterable, item by item, until nothing is left. " * 3,
    "Names refer to objects.",
)
STEPS, ROWS = 3, 4


def windows_of(tokenizer):
    rows = [
        Row(
            i,
            ({"role": "text", "content": f"{TEXTS[i % 4]} {i}"},),
            f"row-{i}",
            source="task" if i % 2 else "general",
        )
        for i in range(STEPS * ROWS)
    ]
    return WindowDataset(rows, tokenizer, 64)


def micro_batches(windows, step, mode, rank):
    first = step * ROWS
    if mode == "single":
        return [windows.collate([windows[first + i] for i in range(ROWS)])]
    own = [windows[first + 2 * rank + i] for i in range(2)]
    # Two rows alone, or padded together, which the model sees without padding.
    return [windows.collate(part) for part in ([own] if step == 1 else [[each] for each in own])]


def train(name, mode, folder, windows, rank):
    case = case_of(name)
    model = load_case(name, folder)
    steps = Steps(model, build_case(name, folder), total_steps=STEPS)
    called = model
    if mode == "ddp":
        called = DistributedDataParallel(model)
    elif mode == "fsdp":
        mesh = init_device_mesh("cpu", (2,))
        base = model if case.model == "full" else model.get_base_model()
        for layer in base.model.layers:
            fully_shard(layer, mesh=mesh)
        called = fully_shard(model, mesh=mesh)
    with steps.attached():
        optimizer = torch.optim.SGD(steps.parameter_groups(0.1))
        for step in range(STEPS):
            batches = micro_batches(windows, step, mode, rank)
            for batch in batches:
                batch.pop("row_index")
            steps.gradient(batches, called)
            optimizer.step()
            steps.done(optimizer)
            optimizer.zero_grad()
    with steps.evaluation_weights():
        return {
            n: (p.full_tensor() if isinstance(p, DTensor) else p).detach().clone()
            for n, p in model.named_parameters()
            if p.requires_grad or name == "gradual_unfreezing"
        }


def train_with_trainer(name, mode, folder, windows, output):
    model = load_case(name, folder)
    alone = mode == "trainer_single"
    arguments = TrainingArguments(
        output_dir=f"{output}.trainer",
        per_device_train_batch_size=4 if alone else 1,
        gradient_accumulation_steps=1 if alone else 2,
        max_steps=STEPS,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend=None if alone else "gloo",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=windows, data_collator=windows.collate
    )
    attach(trainer, build_case(name, folder), logit_free=True)
    trainer.train()
    with trainer._heldout.evaluation_weights():
        return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def main():
    mode, folder, output = sys.argv[1:4]
    torch.set_num_threads(1)
    rank = 0
    alone = mode.endswith("single")
    if not alone:
        dist.init_process_group("gloo")
        rank = dist.get_rank()
    windows = windows_of(AutoTokenizer.from_pretrained(folder))
    found = {}
    names = [name for name, case in CASES.items() if case.trainer and case.exact]
    for name in sys.argv[4:] or names:
        try:
            if mode.startswith("trainer"):
                found[name] = train_with_trainer(name, mode, folder, windows, output)
            else:
                found[name] = train(name, mode, folder, windows, rank)
        except Exception:  # told by the test of this one regularizer
            found[name] = traceback.format_exc()
    if rank == 0:
        torch.save(found, output)
    if not alone:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
