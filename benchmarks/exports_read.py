"""What other trainers make of exports, each by its own interpreter: see ``exports.py``."""

import ast
import inspect
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

KINDS = ("text", "completion", "conversation")
PACKAGES = {
    "axolotl": ("axolotl", "transformers", "trl", "peft", "datasets", "pydantic"),
    "llama-factory": ("llamafactory", "transformers", "trl", "peft", "datasets"),
    "mlx": ("mlx", "mlx-lm", "transformers"),
}
RATE = 1e-4
STEPS = {"ITERS": 4, "EVERY": 2, "UPDATES": 4}  # of mlx, to be filled in
LOCAL = {
    "axolotl": {"bf16": False, "dataset_num_proc": 1, "dataloader_num_workers": 0},
    "llama-factory": {"use_cpu": True, "bf16": False, "dataloader_num_workers": 0},
    "mlx": {},
}


def normal(ids: list[int], labels: list[int]) -> list[list[int]]:
    """Ids and labels; the first token has no predecessor, so its label says nothing."""
    return [list(ids), [-100, *labels[1:]]]


def filled(text: str) -> str:
    for word, value in {"LEARNING_RATE = None": f"LEARNING_RATE = {RATE}", **STEPS}.items():
        text = text.replace(word, str(value))
    return text.replace(": LEARNING_RATE\n", f": {RATE}\n").replace(
        "- LEARNING_RATE\n", f"- {RATE}\n"
    )


def same(wanted: Any, found: Any) -> bool:
    """Equal, or as a parser turns it: numbers from text, names parted at commas, defaults added."""
    if isinstance(wanted, dict):
        read = found if isinstance(found, dict) else vars(found)
        return all(key in read and same(value, read[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(wanted) == len(found) and all(map(same, wanted, found))
    if isinstance(found, list):
        return [str(one) for one in found] == str(wanted).split(",")
    try:
        return float(wanted) == float(found)
    except (TypeError, ValueError):
        return str(wanted) == str(getattr(found, "value", found))


def read_axolotl(given: dict[str, Any], file: Path) -> tuple[list[str], Any]:
    from axolotl.cli.config import load_cfg

    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    parsed = load_cfg(str(file))
    read = parsed.to_dict()
    return [key for key in given if not same(given[key], read.get(key))], parsed


def tokens_of_axolotl(parsed: Any) -> list[Any]:
    from axolotl.common.datasets import load_datasets

    rows = load_datasets(cfg=parsed).train_dataset
    return [normal(row["input_ids"], row["labels"]) for row in rows]


def read_llama_factory(given: dict[str, Any], file: Path) -> tuple[list[str], Any]:
    from llamafactory.hparams import get_train_args

    parsed = get_train_args(dict(given))
    ignored = [
        key
        for key in given
        if not any(hasattr(p, key) and same(given[key], getattr(p, key)) for p in parsed)
    ]
    return [key for key in ignored if given[key] != "none"], parsed


def tokens_of_llama_factory(parsed: Any) -> list[Any]:
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    model, data, training, tuning, _ = parsed
    loaded = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data)
    rows = get_dataset(template, model, data, training, stage=tuning.stage, **loaded)
    found = rows["train_dataset"]
    return [normal(row["input_ids"], row.get("labels", row["input_ids"])) for row in found]


def read_mlx(given: dict[str, Any], file: Path) -> tuple[list[str], Any]:
    import types

    from mlx_lm.lora import CONFIG_DEFAULTS
    from mlx_lm.tuner.utils import build_schedule

    rate = build_schedule(given["lr_schedule"])
    warmup = given["lr_schedule"]["warmup"]
    if abs(float(rate(warmup + 1)) / float(given["learning_rate"]) - 1) > 1e-3:
        raise ValueError(f"the rate after its rise is {float(rate(warmup + 1))}")
    unknown = sorted(set(given) - set(CONFIG_DEFAULTS))
    return unknown, types.SimpleNamespace(**(CONFIG_DEFAULTS | given))


def tokens_of_mlx(parsed: Any) -> list[Any]:
    from mlx_lm.tuner.datasets import load_dataset
    from mlx_lm.utils import load_tokenizer

    rows, _, _ = load_dataset(parsed, load_tokenizer(Path(parsed.model)))
    read = [rows.process(rows[i]) for i in range(len(rows))]
    return [normal(ids, [-100] * first + list(ids[first:])) for ids, first in read]


READERS = {
    "axolotl": (read_axolotl, tokens_of_axolotl),
    "llama-factory": (read_llama_factory, tokens_of_llama_factory),
    "mlx": (read_mlx, tokens_of_mlx),
}


def read_by(trainer: str, folder: Path) -> list[dict[str, Any]]:
    """One row per export: what was refused or ignored; of a run's also its rows' tokens."""
    read, tokens_of = READERS[trainer]
    table = []
    for kind in KINDS:
        os.chdir(folder / kind)
        wanted = json.loads(Path("tokens.json").read_text(encoding="utf-8"))
        for file in sorted(Path().glob("*.yaml")):
            row: dict[str, Any] = {"trainer": trainer, "kind": kind, "name": file.stem}
            table.append(row)
            try:
                given = yaml.safe_load(filled(file.read_text(encoding="utf-8")))
                row["ignored"], parsed = read(given | LOCAL[trainer], Path("filled.yml"))
                row["refused"] = ""
                if file.stem == "a_run":
                    row["rows_alike"] = sorted(tokens_of(parsed)) == wanted
            except Exception as error:
                row["refused"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return table


def begin_without_rate(trainer: str, folder: Path) -> dict[str, Any]:
    """Whether an export whose rate was not filled in trains."""
    os.chdir(folder / "conversation")
    given = yaml.safe_load(Path("full.yaml").read_text(encoding="utf-8"))
    given |= LOCAL[trainer]
    if trainer == "mlx":
        given |= {"iters": 4, "steps_per_eval": 2, "save_every": 2}
    else:
        given["max_steps"] = 2
    row: dict[str, Any] = {"trainer": trainer, "name": "without a rate", "trained": False}
    try:
        _, parsed = READERS[trainer][0](given, Path("rateless.yml"))
        if trainer == "axolotl":
            from axolotl.common.datasets import load_datasets
            from axolotl.train import train

            train(cfg=parsed, dataset_meta=load_datasets(cfg=parsed))
        elif trainer == "llama-factory":
            from llamafactory.train.tuner import run_exp

            run_exp(dict(given))
        else:
            from mlx_lm.lora import run

            run(parsed)
        row["trained"] = True
    except (Exception, SystemExit) as error:
        row["said"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    return row


# TRL and unsloth: scripts


def read_by_trl(folder: Path) -> list[dict[str, Any]]:
    table = []
    for kind in KINDS:
        os.chdir(folder / kind)
        wanted = json.loads(Path("tokens.json").read_text(encoding="utf-8"))
        for file in sorted(Path().glob("*.py")):
            row: dict[str, Any] = {"trainer": "trl", "kind": kind, "name": file.stem, "ignored": []}
            table.append(row)
            try:
                trainer = made(filled(file.read_text(encoding="utf-8")))
                row["refused"] = ""
                if file.stem == "a_run":
                    read = trainer.train_dataset
                    found = [normal(one["input_ids"], one["labels"]) for one in read]
                    row["rows_alike"] = sorted(found) == wanted
            except Exception as error:
                row["refused"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    try:
        made(Path("full.py").read_text(encoding="utf-8"))
        trained = True
    except SystemExit:
        trained = False
    return [*table, {"trainer": "trl", "name": "without a rate", "trained": trained}]


def made(text: str) -> Any:
    """The trainer of a script, which does not train yet."""
    names: dict[str, Any] = {}
    exec(compile(text.replace("\ntrainer.train()\ntrainer.save_model()", ""), "trl", "exec"), names)
    return names["trainer"]


def read_by_unsloth(folder: Path, source: Path) -> list[dict[str, Any]]:
    """Arguments that no signature has: unsloth's by its source, TRL's as installed."""
    from trl import SFTConfig, SFTTrainer

    known = {
        "from_pretrained": signature(source / "unsloth/models/loader.py", "FastLanguageModel"),
        "get_peft_model": signature(source / "unsloth/models/llama.py", "FastLlamaModel"),
        "SFTConfig": set(inspect.signature(SFTConfig).parameters),
        "SFTTrainer": set(inspect.signature(SFTTrainer).parameters),
    }
    assert all(len(names) > 5 for names in known.values()), known
    table = []
    for kind in KINDS:
        for file in sorted((folder / kind).glob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            unknown = [
                f"{name}({keyword.arg}=)"
                for call in ast.walk(tree)
                if isinstance(call, ast.Call) and (name := called(call)) in known
                for keyword in call.keywords
                if keyword.arg not in known[name]
            ]
            table.append(
                {
                    **{"trainer": "unsloth", "kind": kind, "name": file.stem},
                    **{"refused": "", "ignored": unknown},
                }
            )
    return table


def called(call: ast.Call) -> str:
    return getattr(call.func, "attr", "") or getattr(call.func, "id", "")


def signature(file: Path, owner: str) -> set[str]:
    """Names of the method's own arguments; what it hands on by ``**kwargs`` is not in it."""
    wanted = "from_pretrained" if owner == "FastLanguageModel" else "get_peft_model"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: set[str] = set()
    for one in ast.walk(tree):
        if isinstance(one, ast.ClassDef) and one.name == owner:
            for method in one.body:
                if isinstance(method, ast.FunctionDef) and method.name == wanted:
                    found |= {each.arg for each in [*method.args.args, *method.args.kwonlyargs]}
    return found


if __name__ == "__main__":
    sys.path.pop(0)  # a benchmark must not hide a package
    which, where = sys.argv[1], Path(sys.argv[2])
    rows = [*read_by(which, where), begin_without_rate(which, where)]
    used = ", ".join(f"{each} {metadata.version(each)}" for each in PACKAGES[which])
    print("\n" + json.dumps({"rows": rows, "versions": used}))
