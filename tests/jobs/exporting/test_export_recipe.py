import json
import re
import warnings

import pytest
import yaml

import heldout
from heldout.core.discovery import entries_of
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe, load_recipe, recipe_names
from heldout.core.regularizer import overrides_hook
from heldout.core.run import Run
from heldout.jobs.exporting.counterparts import UNATTACHED
from heldout.jobs.exporting.export_recipe import TRAINERS, export_recipe
from heldout.jobs.exporting.recipe_to_export import KINDS
from heldout.jobs.exporting.settings import AVERAGES
from heldout.lm.source import find_source

# Names of options in the trainers' own documentation of their configuration.
AXOLOTL = {
    *("base_model", "datasets", "test_datasets", "val_set_size", "output_dir", "sequence_len"),
    *("sample_packing", "train_on_inputs", "num_epochs", "micro_batch_size", "optimizer"),
    *("gradient_accumulation_steps", "lr_scheduler", "learning_rate", "warmup_steps", "seed"),
    *("max_grad_norm", "adam_beta2", "weight_decay", "neftune_noise_alpha", "bf16", "adapter"),
    *("gradient_checkpointing", "lora_r", "lora_alpha", "lora_dropout", "lora_target_linear"),
    *("lora_target_modules", "eval_steps", "save_steps", "load_best_model_at_end"),
    *("early_stopping_patience", "eval_batch_size"),
}
LLAMA_FACTORY = {
    *("model_name_or_path", "stage", "do_train", "finetuning_type", "dataset", "eval_dataset"),
    *("dataset_dir", "cutoff_len", "packing", "train_on_prompt", "output_dir", "num_train_epochs"),
    *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "optim"),
    *("per_device_eval_batch_size", "report_to", "template"),
    *("warmup_steps", "max_grad_norm", "adam_beta2", "seed", "lr_scheduler_type", "bf16"),
    *("weight_decay", "neftune_noise_alpha", "label_smoothing_factor", "lora_rank", "lora_alpha"),
    *("disable_gradient_checkpointing", "lora_dropout", "lora_target", "eval_strategy"),
    *("eval_steps", "save_strategy", "save_steps", "load_best_model_at_end"),
    *("metric_for_best_model", "early_stopping_steps"),
}
MLX = {
    *("model", "train", "data", "fine_tune_type", "num_layers", "mask_prompt", "batch_size"),
    *("grad_accumulation_steps", "iters", "steps_per_eval", "save_every", "learning_rate"),
    *("lr_schedule", "val_batches", "max_seq_length", "optimizer", "optimizer_config", "seed"),
    *("grad_checkpoint", "adapter_path", "lora_parameters"),
}
NAMES = {"axolotl": AXOLOTL, "llama-factory": LLAMA_FACTORY, "mlx": MLX}
RICH = """
name = "rich"
[data]
max_length = 128
[train]
learning_rate = 3e-4
max_epochs = 6
batch_size = 8
micro_batch_size = 4
schedule = "cosine"
[model]
lora_rank = 4
lora_alpha = 8
lora_targets = "q_proj, v_proj"
[regularizers.weight_decay]
rate = 0.3
[regularizers.neftune]
alpha = 3.0
[regularizers.r_drop]
weight = 0.7
[regularizers.dropout]
adapter = 0.1
hidden = 0.2
[regularizers.early_stopping]
patience = 2
[augment.word_dropout]
"""


@pytest.fixture
def rich(tmp_path):
    path = tmp_path / "rich.toml"
    path.write_text(RICH)
    return path


def run_of(tmp_path, recipe, **result):
    run = Run.create(tmp_path / "run", recipe)
    found = {"best_step": 12, "best_epoch": 2.5, "last_epoch": 8.0, "learning_rate": 7e-4}
    run.write_json("result.json", found | result)
    run.write_json("environment.json", {"model": "some/model"})
    return run.folder


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("rows", KINDS)
def test_every_recipe_for_every_trainer(name, trainer, rows):
    text = export_recipe(name, trainer, rows)
    assert name in text.splitlines()[0]
    if trainer in ("trl", "unsloth"):
        compile(text, trainer, "exec")
        assert ("assistant_only_loss=True" in text) == (rows == "conversation")
    else:
        assert set(yaml.safe_load(text)) <= NAMES[trainer]
        assert "&id" not in text  # an alias, which people would copy in half


@pytest.mark.parametrize("name", recipe_names())
def test_what_axolotl_0_19_0_and_attach_refuse_is_not_written(name):
    table = yaml.safe_load(export_recipe(name, "axolotl"))
    assert "learning_rate" in table  # required
    if "early_stopping_patience" in table:  # read before evals_per_epoch becomes eval_steps
        assert table["save_steps"] % table["eval_steps"] == 0
    for trainer in ("trl", "unsloth"):
        code = [line for line in export_recipe(name, trainer).splitlines() if line[:1] != "#"]
        attached = [line for line in code if line.startswith("heldout.attach")]
        made = {entry.class_name: entry.name for entry in entries_of("regularizer")}
        calls = re.findall(r"heldout\.(\w+)\(", " ".join(attached).replace("attach(", ""))
        found = {made[call] for call in calls}
        assert not found & set(UNATTACHED)
        if found & set(AVERAGES):
            assert "    load_best_model_at_end=True," not in code


def test_what_attach_refuses_is_known():
    def using(*hooks):
        return {
            entry.name
            for entry in entries_of("regularizer")
            for hook in hooks
            if overrides_hook(object.__new__(getattr(heldout, entry.class_name)), hook)
        }

    assert set(UNATTACHED) | {"early_stopping"} == using("decide", "finish")
    assert set(AVERAGES) == using("evaluation_weights")


def test_values_of_axolotl(rich):
    table = yaml.safe_load(export_recipe(rich, "axolotl"))
    assert table["learning_rate"] == 3e-4
    assert (table["lora_r"], table["lora_alpha"], table["lora_dropout"]) == (4, 8, 0.1)
    assert table["lora_target_modules"] == ["q_proj", "v_proj"]
    assert (table["micro_batch_size"], table["gradient_accumulation_steps"]) == (4, 2)
    assert (table["weight_decay"], table["neftune_noise_alpha"]) == (0.3, 3.0)
    assert (table["num_epochs"], table["lr_scheduler"]) == (6, "cosine")
    assert table["early_stopping_patience"] == 2


def test_kinds_of_adapters(rich):
    def text(trainer, kind):
        rich.write_text(RICH.replace("[model]", f'[model]\nadapter = "{kind}"'))
        return export_recipe(rich, trainer)

    assert "init_lora_weights='pissa'" in text("trl", "pissa")
    assert "use_dora=True" in text("unsloth", "dora")
    assert yaml.safe_load(text("axolotl", "olora"))["peft_init_lora_weights"] == "olora"
    assert yaml.safe_load(text("axolotl", "dora"))["peft_use_dora"] is True
    assert yaml.safe_load(text("llama-factory", "pissa"))["pissa_init"] is True
    assert yaml.safe_load(text("llama-factory", "rslora"))["use_rslora"] is True
    assert "# - model.adapter=olora: no counterpart" in text("llama-factory", "olora")


@pytest.mark.parametrize("trainer", ["axolotl", "llama-factory", "mlx"])
def test_what_has_no_counterpart_is_told(rich, trainer):
    notes = [line for line in export_recipe(rich, trainer).splitlines() if line.startswith("#")]
    for told in ("r_drop", "hidden=0.2", "augment.word_dropout", "max_length=128"):
        assert any(told in note for note in notes), told


def test_trl_s_trainer_is_built_with_the_settings(rich, tmp_path):
    trainer = built(rich, tmp_path)
    args, model = trainer.args, trainer.model
    assert (args.learning_rate, args.num_train_epochs, args.max_length) == (3e-4, 6, 128)
    assert (args.weight_decay, args.gradient_accumulation_steps) == (0.3, 2)
    assert model.peft_config["default"].target_modules == {"q_proj", "v_proj"}
    attached = {type(one).__name__: one for one in trainer._heldout.regularizers}
    assert set(attached) == {"RDrop", "NEFTune", "Dropout"}
    assert (attached["RDrop"].weight, attached["NEFTune"].alpha) == (0.7, 3.0)
    assert (attached["Dropout"].hidden, attached["Dropout"].adapter) == (0.2, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_what_a_ready_recipe_attaches_is_taken(name, tmp_path):
    trainer = built(name, tmp_path)
    if load_recipe(name).regularizers.get("ema", {}).get("horizon"):
        averages = [one for one in trainer._heldout.regularizers if isinstance(one, heldout.EMA)]
        steps = len(trainer.get_train_dataloader()) / trainer.args.gradient_accumulation_steps
        assert averages[0].decay == 1 - 1 / max(2, steps)  # of one epoch


def built(recipe, tmp_path):
    """The trainer of the script for TRL, on 64 rows."""
    source = find_source("package:heldout")
    rows = [{"prompt": f"Question {i}?\n", "completion": " Answer." * 3} for i in range(64)]
    for part in ("train", "validation"):
        path = tmp_path / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = (
        export_recipe(recipe, "trl", "completion")
        .replace("LEARNING_RATE = None", "LEARNING_RATE = 1e-4")
        .replace("'MODEL'", repr(str(source.path)))
        .replace("'train.jsonl'", repr(str(tmp_path / "train.jsonl")))
        .replace("'validation.jsonl'", repr(str(tmp_path / "validation.jsonl")))
        .replace("output_dir='out'", f"output_dir={str(tmp_path / 'out')!r}")
        .replace("trainer.train()\ntrainer.save_model()", "")
    )
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's own, about names that transformers has changed
        exec(compile(script, "trl", "exec"), names)
    return names["trainer"]


def test_a_quantized_base(rich):
    def text(trainer, load_in):
        rich.write_text(RICH.replace("[model]", f'[model]\nload_in = "{load_in}"'))
        return export_recipe(rich, trainer)

    assert "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4'" in text("trl", "4bit")
    assert "load_in_4bit=True, load_in_8bit=False" in text("unsloth", "4bit")
    table = yaml.safe_load(text("axolotl", "4bit"))
    assert (table["adapter"], table["load_in_4bit"]) == ("qlora", True)
    assert yaml.safe_load(text("llama-factory", "8bit"))["quantization_bit"] == 8
    assert "model.load_in=8bit" in text("mlx", "8bit")


def test_a_run_gives_its_rate_and_its_best_epoch(tmp_path):
    folder = run_of(tmp_path, load_recipe("default"))
    table = yaml.safe_load(export_recipe(folder, "llama-factory"))
    assert (table["num_train_epochs"], table["learning_rate"]) == (2.5, 7e-4)
    assert table["model_name_or_path"] == "some/model"
    assert "early_stopping_steps" not in table


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_recipe_with_grids_says_that_its_numbers_are_a_start(trainer):
    text = " ".join(export_recipe("pretrain_little_data", trainer).replace("#", "").split())
    assert "where the search of heldout fit starts" in text
    assert "where the search" not in export_recipe("full", trainer)


def test_a_shrink_is_the_decay_that_the_run_found(tmp_path):
    recipe = load_recipe(
        "full", ["regularizers.weight_decay={shrink_per_epoch=0.1, embeddings=false}"]
    )
    text = export_recipe(run_of(tmp_path, recipe, weight_decay=7.5), "trl")
    assert "WeightDecay(rate=7.5, embeddings=False)" in text
    recipe = load_recipe("full", ["regularizers.weight_decay={shrink_per_epoch=0.1}"])
    (tmp_path / "shrink.toml").write_text(recipe.to_toml())
    text = " ".join(export_recipe(tmp_path / "shrink.toml", "axolotl").replace("#", "").split())
    assert "weight_decay.shrink_per_epoch=0.1: give weight_decay, which is that divided by" in text


def test_a_run_that_gained_nothing_has_nothing_to_copy(tmp_path):
    folder = run_of(tmp_path, Recipe(), best_step=0)
    with pytest.raises(UserError, match="no checkpoint was better"):
        export_recipe(folder, "trl")


def test_what_is_unknown_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match="did you mean 'axolotl'"):
        export_recipe("default", "axolotle")
    with pytest.raises(UserError) as error:
        export_recipe("default", "keras")
    assert str(error.value).count("unsloth") == 1  # trainers are listed once
    with pytest.raises(UserError, match="Unknown recipe"):
        export_recipe("defualt", "trl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a run of heldout"):
        export_recipe(tmp_path / "empty", "trl")
