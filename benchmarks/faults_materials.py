"""What the cases are made of: rows, a model that trains in seconds, and runs that have ended."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from faults_processes import Place, in_a_process

FIT = (
    "--recipe",
    "full",
    *("--set", "data.max_length=64"),
    *("--set", "train.learning_rate=5e-3"),
    *("--set", "train.max_epochs=2"),
    *("--set", "train.checkpoint_minutes=0"),
    *("--set", "eval.per_epoch=2"),
    *("--set", "eval.max_train_rows=8"),
    *("--set", "eval.max_recital_rows=8"),
    *("--set", "eval.num_samples=2"),
    *("--set", "eval.max_new_tokens=4"),
)
HYPERFIT = (
    *("--set", "data.max_length=32"),
    *("--set", "hyperfit.num_samples=16"),
    *("--set", "hyperfit.context_tokens=8"),
    *("--set", "hyperfit.new_tokens=16"),
    *("--set", "hyperfit.num_contexts=8"),
    *("--set", "hyperfit.num_validation_contexts=8"),
    *("--set", "hyperfit.keep_last=2"),
    *("--set", "train.learning_rate=5e-3"),
    *("--set", "train.max_epochs=3"),
    *("--set", "train.checkpoint_minutes=0"),
)
NUM_ROWS = 120
_CHARACTERS = 130


@dataclass(frozen=True)
class Materials:
    """Files that no case changes; those that do take a copy."""

    folder: Path

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    def part(self, name: str) -> Path:
        """train, validation or test, of longer texts, as hyperfit needs them."""
        return self.folder / f"{name}.jsonl"

    def run(self, job: str) -> Path:
        """A finished run: fit, hyperfit, ensemble or search."""
        return self.folder / "runs" / job

    @property
    def fit(self) -> list[str]:
        return ["fit", "--model", str(self.model), "--data", str(self.rows), *FIT]

    @property
    def hyperfit(self) -> list[str]:
        found = ["hyperfit", "--model", str(self.model), "--data", str(self.part("train"))]
        for part in ("validation", "test"):
            found += ["--set", f"data.{part}={self.part(part)}"]
        return [*found, *HYPERFIT]

    @property
    def ensemble(self) -> list[str]:
        return ["ensemble", *self.fit[1:], "--members", "2"]


def made(folder: Path) -> Materials:
    """The materials in ``folder``, made where they are missing."""
    found = Materials(folder)
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        in_a_process(lambda: _make(found))
        (folder / "made").touch()
    for job in ("fit", "hyperfit", "ensemble"):
        if not (found.run(job) / "ended").exists():
            shutil.rmtree(found.run(job), ignore_errors=True)
            at = found.folder / "at" / job
            shutil.rmtree(at, ignore_errors=True)
            ended = Place(at).make().run([*getattr(found, job), "--out", str(found.run(job))])
            if ended.code:
                raise RuntimeError(f"{job} does not run: {ended.err[-2000:]}")
            shutil.rmtree(at)
            (found.folder / f"{job}.cpu").write_text(str(ended.cpu))
            (found.run(job) / "ended").touch()
    return found


def texts(num: int, characters: int) -> list[str]:
    """Prose of the World Factbook, cut to a length."""
    from heldout.data.factbook import question_answer_rows

    rows = [row for part in question_answer_rows().values() for row in part]
    whole = " ".join(row["completion"].strip() for row in rows)
    return [whole[at : at + characters] for at in range(0, num * characters, characters)]


def jsonl(path: Path, found: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in found), encoding="utf-8")
    return path


def _make(found: Materials) -> None:
    jsonl(found.rows, texts(NUM_ROWS, _CHARACTERS))
    long = texts(60, 400)
    for name, part in (("train", long[:20]), ("validation", long[20:40]), ("test", long[40:])):
        jsonl(found.part(name), part)
    save_model(found.model, texts(NUM_ROWS, _CHARACTERS))
    shutil.copy(found.model / "config.json", found.config)


def save_model(folder: Path, prose: list[str]) -> None:
    """A random Llama of one layer and width 16, with a byte-level tokenizer of its texts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    of_bytes = Tokenizer(models.BPE())
    of_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    of_bytes.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    of_bytes.train_from_iterator(prose, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=of_bytes, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
