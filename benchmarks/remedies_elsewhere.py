"""Remedies in the packages they are written for, which parse and run them.

Every setting of remedies.toml is laid over a small complete configuration and given to the
trainer's own code, each in an environment of its own (``exports.py`` does so with recipes):

- llama-factory: ``OmegaConf.load`` and ``llamafactory.hparams.get_train_args``, then ``run_exp``
- axolotl: ``axolotl.cli.config.load_cfg`` (its validation), then its trainer
- unsloth: ``FastLanguageModel`` and the ``SFTTrainer`` that it patches; it trains on a CPU since
  2026.10, on a GPU its kernels are others. heldout must be importable there

A setting is *refused* where the parser raises, and *ignored* where its value is not in what the
parser returns. Some are trained for two steps on the embedded model.

Criteria, set before the recorded run: no setting of any remedy is refused (``refused``) or ignored
(``ignored``), at least three remedies train two steps in each trainer (``*_trained``), and none
that was tried fails (``not_trained``).

    python benchmarks/remedies_elsewhere.py llama-factory=PYTHON axolotl=PYTHON unsloth=PYTHON
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = {
    "llama-factory": ("llamafactory", "transformers", "trl", "peft", "datasets"),
    "axolotl": ("axolotl", "transformers", "trl", "peft", "datasets", "pydantic"),
    "unsloth": ("unsloth", "unsloth_zoo", "transformers", "trl", "peft"),
}
TRAINED = {
    "stop_at_the_best_epoch",
    "lower_learning_rate",
    "smaller_adapter",
    "replay",
    "split_without_leaks",
    "an_earlier_checkpoint",
    "neftune",
}
TURNED = {("adamw_torch", "adamw_torch_fused")}  # the same in one kernel: by unsloth
WORDS = {
    "LONGEST_ROW": "256",
    "TEMPLATE": "default",
    "YOUR_TYPE": "alpaca",
}
_LOCAL = {
    "llama-factory": "use_cpu: true\nreport_to: none\nbf16: false\nmax_steps: 2\n"
    "dataloader_num_workers: 0\ndisable_tqdm: true\n",
    "axolotl": "bf16: false\nmax_steps: 2\ndataset_num_proc: 1\ndataloader_num_workers: 0\n",
}
_BASE = {
    "llama-factory": """model_name_or_path: MODEL
stage: sft
do_train: true
finetuning_type: full
dataset_dir: .
dataset: train
eval_dataset: validation
template: default
cutoff_len: 256
per_device_train_batch_size: 2
output_dir: out
""",
    "axolotl": """base_model: MODEL
datasets: [{path: train.jsonl, ds_type: json, type: alpaca}]
test_datasets: [{path: validation.jsonl, ds_type: json, type: alpaca, split: train}]
val_set_size: 0
sequence_len: 256
micro_batch_size: 2
gradient_accumulation_steps: 1
learning_rate: 0.0001
optimizer: adamw_torch
lr_scheduler: constant
num_epochs: 2
output_dir: out
""",
}


# What is written, by heldout


def settings_of(trainer: str) -> dict[str, str]:
    """Each remedy's setting as it is told for a known run, without its comment."""
    from heldout.core.facts import Facts, HistoryPoint
    from heldout.core.verdict import Cause
    from heldout.diagnosis.causes import read_rules
    from heldout.diagnosis.remedies import remedies_for

    losses = (4.0, 3.6, 3.5, 3.9, 4.2, 4.4)
    history = [HistoryPoint(10 * i, float(i), validation_nll=x) for i, x in enumerate(losses)]
    facts = Facts(history=tuple(history), epochs=5.0, learning_rate=3e-5)
    causes = [Cause(rule.name, 0.9, (), (), "") for rule in read_rules().rules]
    return {
        one.name: one.settings[trainer].split("  # ")[0]
        for one in remedies_for(causes, facts)
        if not one.settings[trainer].startswith(("nothing to set: ", "no counterpart"))
    }


def write_configurations(trainer: str, folder: Path) -> None:
    """``NAME.yaml``, what of it must arrive in ``NAME.json``, and the rows that they name."""
    import yaml

    from heldout.lm.source import find_source

    for name in ("MODEL", "BASE"):
        (folder / name).symlink_to(Path(find_source("package:heldout").path).resolve())
    (folder / "DIR").mkdir()
    names = ["train", "validation", "MORE", "YOURS", "OF_THAT_KIND", "GENERAL"]
    names += ["yours", "of_that_kind", "general", "DIR/train", "DIR/validation"]
    for name in names:
        (folder / f"{name}.jsonl").write_text(_rows(), encoding="utf-8")
    columns = {"columns": {"prompt": "instruction", "response": "output"}}
    for where in (folder, folder / "DIR"):
        rows = {Path(name).name: {"file_name": f"{Path(name).name}.jsonl"} for name in names}
        listed = {name: entry | columns for name, entry in rows.items()}
        listed["general"] |= {"num_samples": 2}
        (where / "dataset_info.json").write_text(json.dumps(listed), encoding="utf-8")
    written = settings_of(trainer)
    if trainer == "unsloth":
        (folder / "settings.json").write_text(json.dumps(written), encoding="utf-8")
        return
    for name, text in written.items():
        _write(folder, name, trainer, _BASE[trainer], _filled(text.replace("; ", "\n")))
    assert all(yaml.safe_load(file.read_text()) for file in folder.glob("*.yaml"))


def _filled(text: str) -> str:
    for word, value in WORDS.items():
        text = text.replace(word, value)
    return text


def _write(folder: Path, name: str, trainer: str, base: str, text: str) -> None:
    """Later lines take the place of earlier ones of the same key."""
    lines, keys = [], set()
    local = _LOCAL[trainer] + f"output_dir: out/{name}\n"
    blocks = [_blocks(part) for part in (local, text, base)]
    wanted = {key for key in blocks[1] if key not in blocks[0]}
    for block in blocks:
        lines += [line for key, line in block.items() if key not in keys]
        keys |= block.keys()
    (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(sorted(wanted)), encoding="utf-8")


def _blocks(text: str) -> dict[str, str]:
    """The lines of a YAML text by their top-level key."""
    found: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if not line.startswith(" "):
            key = line.split(":")[0]
            found[key] = line
        else:
            found[key] += "\n" + line
    return found


def _rows() -> str:
    rows = []
    for number in range(6):
        asked, answer = f"What is {number} and {number}?", f"It is {2 * number}, and no more."
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        rows.append({"instruction": asked, "input": "", "output": answer, "messages": turns})
    return "".join(json.dumps(row) + "\n" for row in rows)


# What each trainer makes of it, by its own interpreter


def _same(wanted: Any, found: Any) -> bool:
    """Equal, or as a parser turns it: numbers from text, names parted at commas, defaults added."""
    if isinstance(wanted, dict):
        read = found if isinstance(found, dict) else vars(found)
        return all(key in read and _same(value, read[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(wanted) == len(found) and all(map(_same, wanted, found))
    if isinstance(found, list):
        return [str(one) for one in found] == str(wanted).split(",")
    if (str(wanted), str(getattr(found, "value", found))) in TURNED:
        return True
    try:
        return float(wanted) == float(found)
    except (TypeError, ValueError):
        return str(wanted) == str(getattr(found, "value", found))


def _llama_factory(file: Path, keys: list[str]) -> tuple[list[str], dict[str, Any]]:
    from llamafactory.hparams import get_train_args
    from omegaconf import OmegaConf

    given = OmegaConf.to_container(OmegaConf.load(file))
    parsed = get_train_args(dict(given))
    ignored = [
        key
        for key in keys
        if not any(hasattr(p, key) and _same(given[key], getattr(p, key)) for p in parsed)
    ]
    return ignored, given


def _run_llama_factory(given: dict[str, Any]) -> int:
    from llamafactory.train.tuner import run_exp

    run_exp(dict(given))
    state = json.loads((Path(given["output_dir"]) / "trainer_state.json").read_text())
    return int(state["global_step"])


def _axolotl(file: Path, keys: list[str]) -> tuple[list[str], Any]:
    import yaml
    from axolotl.cli.config import load_cfg

    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    parsed = load_cfg(str(file))
    read = parsed.to_dict()
    return [key for key in keys if not _same(given[key], read.get(key))], parsed


def _run_axolotl(parsed: Any) -> int:
    from axolotl.common.datasets import load_datasets
    from axolotl.train import train

    _, _, trainer = train(cfg=parsed, dataset_meta=load_datasets(cfg=parsed))
    for key in ("load_best_model_at_end", "neftune_noise_alpha"):
        if parsed.get(key) and not getattr(trainer.args, key):
            raise ValueError(f"{key} does not reach the trainer")
    if parsed.get("early_stopping_patience") and trainer.args.eval_strategy == "no":
        raise ValueError("nothing is evaluated")
    return int(trainer.state.global_step)


PARSERS = {"llama-factory": _llama_factory, "axolotl": _axolotl}
RUNNERS = {"llama-factory": _run_llama_factory, "axolotl": _run_axolotl}


def read_by(trainer: str, folder: Path) -> list[dict[str, Any]]:
    """One row per configuration: what was refused, ignored, trained."""
    os.chdir(folder)
    rows = []
    for file in sorted(folder.glob("*.yaml")):
        row: dict[str, Any] = {"trainer": trainer, "name": file.stem, "refused": "", "ignored": []}
        rows.append(row)
        try:
            keys = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
            row["ignored"], parsed = PARSERS[trainer](file, keys)
        except Exception as error:
            row["refused"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            continue
        if file.stem in TRAINED:
            try:
                row["steps"] = RUNNERS[trainer](parsed)
            except Exception as error:
                row["steps"] = 0
                row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return rows


# unsloth: remedies are arguments and calls in Python


def read_by_unsloth(folder: Path) -> list[dict[str, Any]]:
    """Each remedy in a small script, up to its trainer or two steps."""
    import unsloth  # noqa: F401, patches what is imported after it

    os.chdir(folder)
    rows = []
    remedies = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    for name, text in remedies.items():
        row: dict[str, Any] = {"trainer": "unsloth", "name": name, "refused": "", "ignored": []}
        rows.append(row)
        given: dict[str, Any] = {}
        try:
            trainer = _of_remedy(text, given)
            row["ignored"] = [k for k, v in given.items() if not _same(v, getattr(trainer.args, k))]
        except Exception as error:
            row["refused"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            continue
        if name in TRAINED:
            try:
                row["steps"] = trainer.train().global_step
            except Exception as error:
                row["steps"] = 0
                row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return rows


def _names(given: dict[str, Any]) -> dict[str, Any]:
    """What settings refer to; what they give to ``SFTConfig`` is kept in ``given``."""
    from trl import SFTConfig, SFTTrainer

    def config(**values: Any) -> Any:
        given.update({key: value for key, value in values.items() if key != "output_dir"})
        local = {"use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 2}
        return SFTConfig(**{"output_dir": "out", "per_device_train_batch_size": 2} | values | local)

    return {"SFTConfig": config, "SFTTrainer": SFTTrainer}


def _of_remedy(text: str, given: dict[str, Any]) -> Any:
    """Arguments of the trainer, or of what makes its model, in the place of plain ones."""
    from datasets import interleave_datasets, load_dataset
    from transformers import AutoTokenizer, EarlyStoppingCallback
    from unsloth import FastLanguageModel
    from unsloth.chat_templates import get_chat_template, train_on_responses_only

    import heldout

    rows = load_dataset("json", data_files="train.jsonl", split="train")
    model, tokenizer = FastLanguageModel.from_pretrained(
        "MODEL", max_seq_length=64, load_in_4bit=False, full_finetuning="get_peft" not in text
    )
    names = _names(given) | {
        "heldout": heldout,
        "interleave_datasets": interleave_datasets,
        "load_dataset": load_dataset,
        "AutoTokenizer": AutoTokenizer,
        "EarlyStoppingCallback": EarlyStoppingCallback,
        "FastLanguageModel": FastLanguageModel,
        "get_chat_template": get_chat_template,
        "train_on_responses_only": train_on_responses_only,
        **dict.fromkeys(("yours", "general", "of_that_kind"), rows),
        **{"model": model, "tokenizer": tokenizer, "LONGEST_ROW": 64, "FAMILY": "chatml"},
        **{"USER_TAG": "Question:", "ASSISTANT_TAG": "Answer:"},
    }
    on_trainer = text.startswith(("heldout.", "trainer="))
    arguments = {} if on_trainer else eval(f"dict({text})", dict(names))
    arguments.setdefault("processing_class", arguments.pop("tokenizer", tokenizer))
    plain = {"model": model, "args": names["SFTConfig"](), "train_dataset": rows}
    trainer = names["SFTTrainer"](**plain | {"eval_dataset": rows} | arguments)
    if on_trainer:
        names["trainer"] = trainer
        exec(text, names)
        return names["trainer"]
    return trainer


def main(pythons: dict[str, str]) -> None:
    from record import write_record

    rows, versions = [], []
    for trainer, python in pythons.items():
        with tempfile.TemporaryDirectory() as name:
            write_configurations(trainer, Path(name))
            quiet = {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": ""}
            quiet["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
            done = subprocess.run(
                [python, __file__, "--trainer", trainer, name],
                capture_output=True, text=True, check=False, env={**os.environ, **quiet},
            )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        found = json.loads(done.stdout.splitlines()[-1])
        rows += found["rows"]
        versions.append(f"{trainer}: {found['versions']}")
    figures: dict[str, float] = {
        "num": len(rows),
        "refused": sum(bool(row["refused"]) for row in rows),
        "ignored": sum(bool(row["ignored"]) for row in rows),
        "not_trained": sum(row.get("steps") == 0 for row in rows),
    }
    for trainer in pythons:
        mine = [row for row in rows if row["trainer"] == trainer]
        key = trainer.replace("-", "_")
        figures[f"{key}_num"] = len(mine)
        figures[f"{key}_trained"] = sum(row.get("steps") == 2 for row in mine)
    command = "python benchmarks/remedies_elsewhere.py " + " ".join(f"{t}=PYTHON" for t in pythons)
    print(json.dumps([r for r in rows if r["refused"] or r["ignored"] or "failed" in r], indent=1))
    print(
        write_record(
            "remedies_elsewhere", figures, table=rows, seeds=[], data_sha256="", command=command,
            note="; ".join(versions),
        )
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trainer"]:
        sys.path.pop(0)  # a benchmark must not hide a package, as coverage.py does
        which, where = sys.argv[2], Path(sys.argv[3])
        made = read_by_unsloth(where) if which == "unsloth" else read_by(which, where)
        used = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES[which])
        print("\n" + json.dumps({"rows": made, "versions": used}))
    elif sys.argv[1:] and all(one.partition("=")[0] in PACKAGES for one in sys.argv[1:]):
        main(dict(one.split("=", 1) for one in sys.argv[1:]))
    else:
        sys.exit("Give TRAINER=PYTHON for one or more of " + ", ".join(PACKAGES) + ".")
