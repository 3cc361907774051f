"""What ``fit_speed.py`` runs within a process of either build: TASK OUT ARGUMENTS.

``stages``: CPU seconds of each stage of a command; ``memory``: peak of training less what is
resident before it; ``epoch``: seconds of the second epoch's steps, without evaluations; ``seeds``:
one command for each seed; ``trl``: the second epoch of TRL's SFTTrainer with packing; ``rows``:
writes them; ``tokens``: of rows under a model, with its FLOPs; ``rate``, ``gpu_rate``: of a matrix
product. OUT receives the figures.
"""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fit_speed_builds import self_and_children_seconds

IGNORED = -100
RATE_SHAPES = {"embedded": (680, 192, 512), "smollm2": (400, 576, 1536)}


def main() -> None:
    task, out, *arguments = sys.argv[1:]
    found = TASKS[task](arguments)
    Path(out).write_text(json.dumps(found) + "\n", encoding="utf-8")


def run_command(arguments: Sequence[str]) -> None:
    """``heldout ARGUMENTS`` in this process; SystemExit where it fails."""
    from heldout.cli.main import main as command

    sys.argv = ["heldout", *arguments]
    try:
        command()
    except SystemExit as end:
        if end.code:
            raise


def stages(arguments: Sequence[str]) -> dict[str, float]:
    """By the name of the stage, those inside of others included."""
    from heldout.cli.progress import ConsoleProgress

    seconds: dict[str, float] = {}
    original = ConsoleProgress.stage

    @contextlib.contextmanager
    def timed(self: Any, name: str, total: int | None = None) -> Iterator[None]:
        start = self_and_children_seconds()
        with original(self, name, total):
            yield
        seconds[name] = seconds.get(name, 0.0) + self_and_children_seconds() - start

    ConsoleProgress.stage = timed  # type: ignore[method-assign]
    start = self_and_children_seconds()
    run_command(arguments)
    return {**seconds, "everything": self_and_children_seconds() - start}


def memory(arguments: Sequence[str]) -> dict[str, int]:
    """Bytes, of the one training of the command."""
    import transformers

    found: list[dict[str, int]] = []
    original = transformers.Trainer.train

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak
        before = status_bytes("VmRSS")
        result = original(self, *args, **kwargs)
        peak = status_bytes("VmHWM")
        found.append({"before": before, "peak": peak, "training": peak - before})
        return result

    transformers.Trainer.train = watched
    run_command(arguments)
    assert len(found) == 1, f"one training in this process was expected, there were {len(found)}"
    return found[0]


def epoch(arguments: Sequence[str]) -> dict[str, float]:
    """``cpu`` and ``wall`` seconds and the number of ``steps``."""
    import transformers

    clock = second_epoch_clock()
    original = transformers.Trainer.train

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.add_callback(clock)
        return original(self, *args, **kwargs)

    transformers.Trainer.train = watched
    run_command(arguments)
    return clock.figures


def second_epoch_clock() -> Any:
    """A callback of the Trainer whose ``figures`` are those of the second epoch."""
    import torch
    from transformers import TrainerCallback

    on_gpu = torch.cuda.is_available()

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.begun: tuple[float, float] | None = None
            self.figures: dict[str, float] = {"steps": 0}

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step:
                if on_gpu:
                    torch.cuda.synchronize()
                    torch.cuda.reset_peak_memory_stats()
                self.begun = time.process_time(), time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.begun:
                if on_gpu:
                    torch.cuda.synchronize()
                    self.figures["gpu_bytes"] = torch.cuda.max_memory_allocated()
                cpu, wall = self.begun
                self.figures |= {
                    "cpu": time.process_time() - cpu,
                    "wall": time.perf_counter() - wall,
                    "steps": self.figures["steps"] + 1,
                }

    return Clock()


def seeds(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """FOLDER FIRST NUM ARGUMENTS: the result of each seed; finished ones are not trained again."""
    folder, first, num, *command = arguments
    found = {}
    for seed in range(int(first), int(first) + int(num)):
        out = Path(folder) / f"seed-{seed}"
        if not (out / "report.html").exists():
            run_command([*command, "--set", f"train.seed={seed}", "--out", str(out)])
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        found[str(seed)] = {"test_nll": result["figures"]["test_nll_best"]}
    return found


def trl(arguments: Sequence[str]) -> dict[str, Any]:
    """MODEL ROWS METHOD TOKENS FOLDER: seconds of the second epoch, and what is attended to."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from heldout.lm.load import load_model

    model_name, rows, method, tokens_a_step, folder = arguments
    on_gpu = torch.cuda.is_available()
    loaded = load_model(model_name, device="cuda" if on_gpu else "cpu")
    windows = windows_of(Path(rows), loaded.tokenizer)
    clock = second_epoch_clock()
    trainer = SFTTrainer(
        model=loaded.model,
        processing_class=loaded.tokenizer,
        train_dataset=Dataset.from_list(windows),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
        if method == "lora"
        else None,
        args=SFTConfig(
            output_dir=folder,
            packing=True,
            max_length=int(tokens_a_step),
            per_device_train_batch_size=1,
            num_train_epochs=2,
            learning_rate=1e-4,
            optim="adamw_torch_fused",
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            seed=0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        callbacks=[clock],
    )
    apart = packed_apart(trainer, torch)
    trainer.train()
    scored = sum(label != IGNORED for window in windows for label in window["labels"])
    return {**clock.figures, "scored_tokens": scored, **apart}


def packed_apart(trainer: Any, torch: Any) -> dict[str, float]:
    """The largest difference of logits of a pack's second row to the same row alone.

    Beside it the size of the logits, and what the difference is where the row does attend to the
    one before it.
    """
    device = trainer.model.device
    for found in trainer.get_train_dataloader():
        batch = {k: v.to(device) if hasattr(v, "to") else v for k, v in found.items()}
        ids, positions = batch["input_ids"], batch["position_ids"]
        starts = [int(at) for at in (positions[0] == 0).nonzero()] + [ids.shape[1]]
        if len(starts) > 2:
            break
    else:
        raise SystemExit("No pack holds two rows: give more rows or more tokens a step.")
    begin, end = starts[1], starts[2]
    model = trainer.model.eval()
    names = ("input_ids", "position_ids", "attention_mask")
    with torch.no_grad():
        packed = model(**{name: batch[name] for name in names if name in batch}).logits
        alone = model(input_ids=ids[:, begin:end]).logits
        across = model(input_ids=ids[:, :end]).logits
    model.train()
    return {
        "packed_logit_difference": float((packed[:, begin:end] - alone).abs().max()),
        "across_logit_difference": float((across[:, begin:end] - alone).abs().max()),
        "logit_size": float(alone.abs().mean()),
        "attention": str(model.config._attn_implementation),
    }


def rows(arguments: Sequence[str]) -> dict[str, str]:
    """NAME WORK tiny|full: the hash of the rows, which are written where they are not there yet."""
    from fit_speed_parts import FULL, TINY, data_of

    name, work, size = arguments
    return {"sha256": data_of(name, Path(work), TINY if size == "tiny" else FULL)}


def windows_of(path: Path, tokenizer: Any, max_length: int = 512) -> list[dict[str, list[int]]]:
    """``input_ids`` and ``labels`` of all windows, as ``heldout fit`` cuts them."""
    from heldout.core.row import Row
    from heldout.lm.tokenize import tokenize_row

    found = []
    for index, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        messages = row.get("messages")
        if messages is None and "text" in row:
            messages = [{"role": "text", "content": row["text"]}]
        elif messages is None:
            messages = [{"role": role, "content": row[role]} for role in ("prompt", "completion")]
        tokenized = tokenize_row(Row(index, tuple(messages), ""), tokenizer, max_length)
        found += [
            {"input_ids": list(window.input_ids), "labels": list(window.labels)}
            for window in tokenized.windows
        ]
    return found


def tokens(arguments: Sequence[str]) -> dict[str, Any]:
    """MODEL FILES: tokens, scored ones and windows of each file, and what the model multiplies."""
    from heldout.lm.load import load_model

    model_name, *files = arguments
    loaded = load_model(model_name, device="cpu")
    model = loaded.model
    multiplied = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    if not model.config.tie_word_embeddings:
        multiplied -= model.get_input_embeddings().weight.numel()
    found: dict[str, Any] = {"multiplied_parameters": multiplied}
    for file in files:
        windows = windows_of(Path(file), loaded.tokenizer)
        lengths = [len(window["input_ids"]) for window in windows]
        found[Path(file).stem] = {
            "windows": len(windows),
            "tokens": sum(lengths),
            "longest": max(lengths),
            "scored": sum(x != IGNORED for window in windows for x in window["labels"]),
        }
    return found


def rate(arguments: Sequence[str]) -> dict[str, float]:
    """FLOPs a second of one thread, by the width of the model and the type of numbers."""
    import torch

    torch.set_num_threads(1)
    found = {}
    for name, (rows, inner, columns) in RATE_SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            left = torch.randn(rows, inner).to(dtype)
            right = torch.randn(inner, columns).to(dtype)
            best = 0.0
            for _ in range(7):
                start, times = time.process_time(), 0
                while time.process_time() - start < 0.2:
                    left @ right
                    times += 1
                flops = 2 * rows * inner * columns * times
                best = max(best, flops / (time.process_time() - start))
            found[f"{name}_{str(dtype).removeprefix('torch.')}"] = best
    return found


def gpu_rate(arguments: Sequence[str]) -> dict[str, float]:
    """FLOPs a second of the GPU, or of a CPU where there is none, by the type of numbers."""
    import torch

    on_gpu = torch.cuda.is_available()
    size, times = (8192, 20) if on_gpu else (256, 2)
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        left = torch.randn(size, size, device="cuda" if on_gpu else "cpu").to(dtype)
        for repeats in (3, times):
            start = time.perf_counter()
            for _ in range(repeats):
                left @ left
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        found[str(dtype).removeprefix("torch.")] = 2 * size**3 * times / seconds
    return found


def status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {key}: this benchmark needs Linux.")


TASKS = {
    "stages": stages,
    "memory": memory,
    "epoch": epoch,
    "seeds": seeds,
    "trl": trl,
    "rows": rows,
    "tokens": tokens,
    "rate": rate,
    "gpu_rate": gpu_rate,
}

if __name__ == "__main__":
    main()
