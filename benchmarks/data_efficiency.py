"""How many times the data a regularized recipe, an ensemble and its student are worth.

Speeches on the State of the Union, cut into passages; a small Llama from scratch on U tokens of
them. The baseline is the same architecture unregularized, tuned for itself (epochs, learning rate,
size) at U, 2 U and 4 U. The treatments see U alone: strong weight decay, dropout, averaged weights
and text cut anew for every epoch, tuned by coordinate search with its certificate; ensembles of
such models that average probabilities, of seeds alone and of all that was trained on the way; one
model distilled from the latter. "Times the data" is where the baseline's curve through its own
three losses reaches the treatment's: never extrapolated.

    python benchmarks/data_efficiency.py --tune-baseline
    python benchmarks/data_efficiency.py --baseline-seeds
    python benchmarks/data_efficiency.py --search
    python benchmarks/data_efficiency.py --seeds
    python benchmarks/data_efficiency.py --tried
    python benchmarks/data_efficiency.py --select
    python benchmarks/data_efficiency.py --distill
    python benchmarks/data_efficiency.py --report

Everything is chosen on validation speeches; the test speeches are read by ``--report`` alone.
Every training is kept in ``.cache/data_efficiency`` and not run again; a training is a trunk at a
constant rate and a fall of the rate over its last quarter, so that trainings that differ in their
epochs alone share a trunk. One thread; the stages may run beside one another.
"""

import argparse
import hashlib
import json
import math
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write_record
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from heldout.core.discovery import build
from heldout.core.losses import DocumentLosses
from heldout.core.regularizer import Regularizer, TokenSum
from heldout.lm.head import scored_nats
from heldout.lm.nll import evaluating
from heldout.lm.passes import Passes
from heldout.lm.tokenize import Window, collate
from heldout.lm.weights import copies, trained_parameters
from heldout.regularizers.distillation import distillation_nats, teacher_log_probs
from heldout.scaling.ensemble import Asymptote, asymptote, ensemble_losses, mixture_nats
from heldout.search.coordinate import CoordinateSearch, Point, Tried, search_coordinates
from heldout.training.steps import Steps

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "pretrain_demo_model"))
from corpus import pack, read_corpus

# G groups, N scored tokens, K members

END = "<|endoftext|>"
VOCABULARY = 640
LENGTH = 128  # tokens of a window
BATCH = 8  # windows of a step
PASSAGE = 2400  # characters, about
PASSAGES = 294  # of the training speeches, in U
TOKENIZER_PASSAGES = 256  # the tokenizer learns from them
TIMES = (1, 2, 4)
SPEECHES = {"validation": 24, "test": 60}
HELD_OUT_PASSAGES = {"validation": 48, "test": 180}
WIDTH = 128  # 475,000 parameters
HEAD_WIDTH = 32
FOLDER = Path(f".cache/data_efficiency/{PASSAGES}_passages")
SELECTED = FOLDER / "selected.json"
WARMUP = 50  # steps
FALL = 0.25  # the share of a training over which its rate falls to 0
EMA = {"decay": 0.99}
RATES = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
EPOCHS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
WIDTHS = [64, 96, WIDTH]
BASELINE_GRIDS = {"epochs": EPOCHS, "rate": RATES, "width": WIDTHS}
BASELINE_START = {"rate": 2e-3, "width": WIDTH}
START_EPOCHS = {1: 6, 2: 8, 4: 8}
BASELINE_SEEDS = (0, 1, 2, 3)
GRIDS = {
    "decay": [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4],
    "rate": RATES,
    "epochs": [8, 16, 32],  # more take too long here, though 64 are better for one model
    "dropout": [0.0, 0.1, 0.2],
    "width": WIDTHS,
}
START = {"epochs": 32, "rate": 2e-3, "decay": 0.8, "dropout": 0.0, "width": WIDTH}
CHOSEN = START  # by the search of a single model
SEEDS = 3  # trainings of the chosen point
# Beside them the ensemble may use what the search has trained on the way: changes of that point.
TRIED: list[dict[str, float]] = [
    {"rate": 1e-3},
    {"rate": 4e-3},
    {"decay": 0.4},
    {"decay": 1.6},
    {"epochs": 16},
    {"width": 96},
    {"dropout": 0.1},
    {"dropout": 0.1, "decay": 0.4},
    {"dropout": 0.1, "epochs": 16},
    {"dropout": 0.1, "epochs": 64},
    {"dropout": 0.1, "epochs": 64, "seed": 1},
    {"decay": 0.4, "epochs": 16},
    {"decay": 0.4, "epochs": 16, "seed": 1},
]
MAX_TRIALS = 24
MEMBERS = 12  # of the ensemble of what was trained, at most
SAMPLED_WINDOWS = 512  # of a part
RESAMPLES = 2000


@dataclass(frozen=True)
class Setting:
    """One training, but for its epochs."""

    times: int = 1  # of U
    width: int = WIDTH
    rate: float = 4e-3
    decay: float = 0.0
    dropout: float = 0.0
    treated: bool = False  # averaged weights, and text cut anew for every epoch
    seed: int = 0

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


NOTE = (
    "Times the data: where the unregularized baseline's own curve, L = E + B / D^beta through its "
    "losses at 1, 2 and 4 times U, is as low as the treatment; each of the three is tuned on "
    "validation as far as its certificate in the table says, and a baseline that is not certified "
    "flatters the treatments; "
    "interpolated, and never above largest_data. Intervals resample the test speeches, for the "
    "baselines and the regularized model the seeds too; the ensemble's members and the student "
    "are taken as they are."
)


class Data:
    """Passages and their tokens; the parts do not share a speech."""

    def __init__(self) -> None:
        corpus = read_corpus()
        # After the speeches come the chapters of the Bible, which are not used.
        first = next(i for i, t in enumerate(corpus.train) if t.startswith("In the beginning God"))
        speeches = corpus.train[:first] + corpus.validation + corpus.later
        random.Random(0).shuffle(speeches)
        parts: dict[str, list[tuple[str, str]]] = {}
        start = 0
        for name, number in (*SPEECHES.items(), ("train", len(speeches))):
            chosen = list(enumerate(speeches))[start : start + number]
            start += number
            found = [(str(i), passage) for i, speech in chosen for passage in passages(speech)]
            random.Random(1).shuffle(found)
            parts[name] = found[: HELD_OUT_PASSAGES.get(name, PASSAGES * TIMES[-1])]
        self.parts = parts
        texts = [text for _, text in parts["train"]]
        self.tokenizer = trained_tokenizer(texts[:TOKENIZER_PASSAGES])
        self.train = [self.tokenizer(text).input_ids for text in texts]

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.parts).encode()).hexdigest()

    def tokens(self, times: int) -> int:
        return sum(len(ids) + 1 for ids in self.train[: times * PASSAGES])

    def windows(self, part: str) -> tuple[list[Window], list[str]]:
        """Windows of a held-out part and their speeches; every token of a passage is scored."""
        windows, groups = [], []
        for group, text in self.parts[part]:
            ids = [self.tokenizer.eos_token_id, *self.tokenizer(text).input_ids]
            for first in range(0, len(ids) - 1, LENGTH - 1):
                piece = ids[first : first + LENGTH]
                windows.append(Window(piece, [-100, *piece[1:]]))
                groups.append(group)
        return windows, groups


def passages(speech: str) -> list[str]:
    """Pieces that end with a sentence."""
    pieces, current = [], ""
    for sentence in re.split(r"(?<=[.!?]) +", speech):
        current = f"{current} {sentence}".strip()
        if len(current) >= PASSAGE:
            pieces.append(current)
            current = ""
    return pieces


def trained_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)


# Training


def new_model(width: int, seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=2,
        num_attention_heads=width // HEAD_WIDTH,
        num_key_value_heads=width // HEAD_WIDTH,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def regularizers_of(setting: Setting) -> list:
    found = []
    if setting.decay:
        found.append(build("regularizer", "weight_decay", {"rate": setting.decay}))
    if setting.dropout:
        found.append(build("regularizer", "dropout", {"hidden": setting.dropout}))
    if setting.treated:
        found.append(build("regularizer", "ema", EMA))
    return found


class Training:
    """A model that can be put at any step of its trunk and brought to an end from there."""

    def __init__(self, setting: Setting, data: Data, more_regularizers=()):
        self.setting = setting
        self.documents = data.train[: setting.times * PASSAGES]
        self.end_id = data.tokenizer.eos_token_id
        self.model = new_model(setting.width, setting.seed)
        self.steps = Steps(self.model, [*regularizers_of(setting), *more_regularizers])
        groups = self.steps.parameter_groups(setting.rate)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
        self.windows: torch.Tensor | None = None  # read these, in place of the documents
        self.epoch_at_hand: tuple[int, torch.Tensor, list[int]] | None = None

    @cached_property
    def steps_per_epoch(self) -> int:
        return len(self.of_epoch(0)[0]) // BATCH

    def of_epoch(self, epoch: int) -> tuple[torch.Tensor, list[int]]:
        """All windows of that epoch, and the order in which they are read."""
        if self.epoch_at_hand is None or self.epoch_at_hand[0] != epoch:
            order = random.Random(f"{self.setting.seed}-{epoch}")
            windows = self.windows
            if windows is None:
                documents = list(self.documents)
                if self.setting.treated:
                    order.shuffle(documents)
                windows = torch.tensor(pack(documents, self.end_id, LENGTH))
            places = list(range(len(windows)))
            order.shuffle(places)
            self.epoch_at_hand = epoch, windows, places
        return self.epoch_at_hand[1:]

    def run(self, last: int, falls_from: int | None = None) -> None:
        """Train up to step ``last``, with the rate falling to 0 from ``falls_from``."""
        with self.steps.attached():
            while self.steps.step < last:
                step = self.steps.step
                factor = min(1.0, (step + 1) / WARMUP)
                if falls_from is not None:
                    factor *= (last - step) / (last - falls_from)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.setting.rate * factor
                epoch, place = divmod(step, self.steps_per_epoch)
                windows, places = self.of_epoch(epoch)
                rows = places[place * BATCH : (place + 1) * BATCH]
                batch = {"input_ids": windows[rows], "labels": windows[rows]}
                torch.manual_seed(1_000_003 * self.setting.seed + step)
                loss = self.steps.gradient([{**batch, "row_index": torch.tensor(rows)}])
                if not math.isfinite(loss):
                    raise FloatingPointError(f"step {step}")
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.steps.done(self.optimizer)
                self.optimizer.zero_grad()

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps.state_dict(),
            "step": self.steps.step,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps.load_state_dict(state["steps"])
        self.steps.step = state["step"]

    def evaluated_weights(self) -> dict[str, torch.Tensor]:
        with self.steps.evaluation_weights():
            return copies(trained_parameters(self.model))


def weights_path(setting: Setting, epochs: float) -> Path:
    return FOLDER / "weights" / f"{setting.name}-{epochs:g}.pt"


def train(setting: Setting, epochs: float, data: Data) -> dict[str, torch.Tensor]:
    """The weights after so many epochs; kept, as are points of the trunk."""
    path = weights_path(setting, epochs)
    if not path.exists():
        training = Training(setting, data)
        last = round(epochs * training.steps_per_epoch)
        branches = sorted({branch_of(training, each) for each in {*EPOCHS, epochs}})
        branch = branch_of(training, epochs)
        trunk = FOLDER / "trunks" / setting.name
        trunk.mkdir(parents=True, exist_ok=True)
        kept = [int(file.stem) for file in trunk.glob("*.pt")]
        if earlier := [step for step in kept if step <= branch]:
            training.load(trunk / f"{max(earlier)}.pt")
        for step in branches:
            if training.steps.step < step <= branch:
                training.run(step)
                training.save(trunk / f"{step}.pt")
        training.run(last, branch)
        save_weights(training, path)
    return torch.load(path, weights_only=True)


def branch_of(training: Training, epochs: float) -> int:
    """The step at which a training of so many epochs leaves the trunk."""
    return round((1 - FALL) * round(epochs * training.steps_per_epoch))


def save_weights(training: Training, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{training.setting.name}")
    torch.save(training.evaluated_weights(), partial)
    partial.replace(path)


def put_in(weights: dict[str, torch.Tensor]) -> LlamaForCausalLM:
    """A model of these weights, for evaluation."""
    model = new_model(weights["model.embed_tokens.weight"].shape[1], 0)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert missing == ["lm_head.weight"], "the head is tied to the embeddings"
    return model.eval()


# Measuring


def token_nats(model, windows: list[Window], pad_id: int) -> np.ndarray:
    """Loss of every scored token, in the order of the windows."""
    found: list[np.ndarray] = []
    with evaluating(model):
        for start in range(0, len(windows), 32):
            batch = collate(windows[start : start + 32], pad_id)
            found.append(scored_nats(model, batch)[0].numpy())
    return np.concatenate(found)


def groups_of_tokens(windows: list[Window], groups: list[str]) -> np.ndarray:
    return np.repeat(groups, [window.num_scored for window in windows])


class Held:
    """One held-out part: its losses under any weights, kept in a file."""

    def __init__(self, part: str, data: Data):
        self.part = part
        self.windows, groups = data.windows(part)
        self.groups_N = groups_of_tokens(self.windows, groups)
        self.num_bytes = sum(len(text.encode()) for _, text in data.parts[part])
        self.pad_id = data.tokenizer.pad_token_id

    def nats(self, weights: dict[str, torch.Tensor]) -> np.ndarray:
        return token_nats(put_in(weights), self.windows, self.pad_id)

    def losses(self, nats_N: np.ndarray) -> DocumentLosses:
        names_G, index_N = np.unique(self.groups_N, return_inverse=True)
        tokens_G = np.bincount(index_N)
        return DocumentLosses(
            np.bincount(index_N, nats_N.astype(np.float64)),
            tokens_G,
            np.zeros(len(names_G), dtype=np.int64),
            names_G,
        )


# Stages


class Untrained(Exception):
    pass


def searched(
    name: str, base: Setting, grids, start: Point, data: Data, held: Held, *, trains: bool
) -> CoordinateSearch:
    """A coordinate search whose trials are appended to a file and never run again.

    If it may not train, it goes as far as there are trained models.
    """
    known = [Tried.from_json(json.loads(line)) for line in lines_of(f"search_{name}")]

    def evaluate(point: Point) -> DocumentLosses | None:
        setting, epochs = setting_at(base, point)
        if not trains and not weights_path(setting, epochs).exists():
            raise Untrained
        with timed(name):
            try:
                losses = held.losses(held.nats(train(setting, epochs, data)))
            except FloatingPointError:
                losses = None
        loss = losses.nats_per_token if losses else math.nan
        print(f"{time.strftime('%H:%M:%S')} {name} {point} {loss:.4f}", flush=True)
        return losses

    def keep(tried: Tried) -> None:
        known.append(tried)
        with (FOLDER / f"search_{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(tried.to_json()) + "\n")

    for max_trials in range(MAX_TRIALS, 0, -1):
        with suppress(Untrained):
            return search_coordinates(
                evaluate,
                grids,
                start=start,
                max_trials=max_trials,
                cost=lambda point: point["epochs"] * point.get("width", WIDTH) ** 2,
                known=known,
                keep=keep,
            )
    raise FileNotFoundError(f"{name}: not even the start is trained")


def setting_at(base: Setting, point: Point) -> tuple[Setting, float]:
    values = {key: value for key, value in point.items() if key != "epochs"}
    return replace(base, **values), point["epochs"]


def baseline(times: int, data: Data, held: Held, *, trains: bool) -> CoordinateSearch:
    base = Setting(times=times)
    start = {"epochs": START_EPOCHS[times], **BASELINE_START}
    return searched(f"baseline_{times}", base, BASELINE_GRIDS, start, data, held, trains=trains)


def baseline_seeds(times: int, data: Data, held: Held) -> None:
    """Trainings at the chosen point that differ in their seed alone."""
    chosen = baseline(times, data, held, trains=False).chosen
    assert chosen is not None
    setting, epochs = setting_at(Setting(times=times), chosen.point)
    for seed in BASELINE_SEEDS[1:]:
        with timed(f"baseline {times} seed {seed}"):
            train(replace(setting, seed=seed), epochs, data)


def kept_seeds(setting: Setting, epochs: float) -> list[Path]:
    paths = [weights_path(replace(setting, seed=seed), epochs) for seed in BASELINE_SEEDS]
    return [path for path in paths if path.exists()]


def regularized(data: Data, held: Held, *, trains: bool) -> CoordinateSearch:
    base = Setting(treated=True)
    return searched("regularized", base, GRIDS, START, data, held, trains=trains)


def treated_setting(changes: Mapping[str, float]) -> tuple[Setting, float]:
    """The chosen point with some of its values changed; ``seed`` may be one of them."""
    point = {**CHOSEN, **changes}
    seed = int(point.pop("seed", 0))
    return setting_at(Setting(treated=True, seed=seed), point)


def train_seeds(seeds: list[int], data: Data) -> None:
    """Trainings that differ in their seed alone."""
    for seed in seeds:
        with timed(f"seed {seed}"):
            train(*treated_setting({"seed": seed}), data)


def train_tried(data: Data) -> None:
    """Points of the search, and those that were tried before it."""
    for changes in TRIED:
        with timed(f"tried {changes}"):
            train(*treated_setting(changes), data)


def seed_paths() -> list[Path]:
    return [weights_path(*treated_setting({"seed": seed})) for seed in range(SEEDS)]


def trained_pool() -> list[dict[str, float]]:
    """What the ensemble may choose from."""
    pool = [{"seed": seed} for seed in range(SEEDS)] + TRIED
    return [changes for changes in pool if weights_path(*treated_setting(changes)).exists()]


def select(held: Held) -> None:
    """Of all that was trained on U, add the model that lowers the validation loss most, and again.

    Ensemble selection (Caruana et al. 2004) without replacement, until none lowers it: trainings
    that were paid for anyway. The list is written once, as the student is taught by it.
    """
    if SELECTED.exists():
        return
    pool = trained_pool()
    logs = [
        -held.nats(torch.load(weights_path(*treated_setting(changes)), weights_only=True))
        for changes in pool
    ]
    chosen: list[int] = []
    total_N = np.full(len(logs[0]), -np.inf)
    steps = []
    while len(chosen) < min(MEMBERS, len(pool)):
        losses = {
            place: math.log(len(chosen) + 1) - float(np.logaddexp(total_N, log_N).mean())
            for place, log_N in enumerate(logs)
            if place not in chosen
        }
        best = min(losses, key=losses.__getitem__)
        if steps and losses[best] >= steps[-1]["validation_nats_per_token"]:
            break
        chosen.append(best)
        total_N = np.logaddexp(total_N, logs[best])
        steps.append({"model": pool[best], "validation_nats_per_token": losses[best]})
        print(steps[-1], flush=True)
    SELECTED.write_text(json.dumps({"pool": len(pool), "steps": steps}, indent=1))


def selected_paths() -> list[Path]:
    steps = json.loads(SELECTED.read_text())["steps"]
    return [weights_path(*treated_setting(step["model"])) for step in steps]


@torch.no_grad()
def read_by_student(part: int, data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows, and the ensemble's log-probabilities of every next token, float16.

    Part 0 is the U passages; of all others, the ensemble itself has written the text: it goes on
    from 8 tokens of the U passages.
    """
    path = FOLDER / f"student_part_{part}.pt"
    if not path.exists():
        with timed(f"part {part}"):
            models = [
                put_in(torch.load(weights, weights_only=True)) for weights in selected_paths()
            ]
            documents = data.train[:PASSAGES]
            if part:
                generator = torch.Generator().manual_seed(part)
                starts_BT = torch.tensor(pack(documents, data.tokenizer.eos_token_id, 8))
                rows_B = torch.randint(len(starts_BT), (SAMPLED_WINDOWS,), generator=generator)
                ids_BT = continued(models, starts_BT[rows_B], generator)
            else:
                ids_BT = torch.tensor(pack(documents, data.tokenizer.eos_token_id, LENGTH))
            logs = [
                teacher_log_probs(models, {"input_ids": ids, "labels": ids}).half()
                for ids in ids_BT.split(32)
            ]
            partial = path.with_suffix(".partial")
            torch.save((ids_BT, torch.cat(logs).view(len(ids_BT), LENGTH - 1, -1)), partial)
            partial.replace(path)
    return torch.load(path, weights_only=True)


@dataclass(frozen=True)
class Taught(Regularizer):
    """Distillation from predictions that were computed once: nothing but the divergence."""

    log_BTV: Any = None

    def extra_loss(self, passes: Passes, batch: dict[str, Any]) -> TokenSum:
        task = passes.task
        teacher_log_NV = self.log_BTV[batch["row_index"]].float().flatten(0, 1)
        whole_N = distillation_nats(task.logits(), teacher_log_NV, task.targets_N, weight=1.0)
        return TokenSum(whole_N.sum() - task.cross_entropy())


def continued(models: list, ids_BT: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Windows that begin with ``ids_BT``, each next token drawn from the mean probability."""
    caches = [DynamicCache() for _ in models]
    new_BT = ids_BT
    while ids_BT.shape[1] < LENGTH:
        mean_BV = torch.zeros(len(ids_BT), VOCABULARY)
        for model, cache in zip(models, caches, strict=True):
            logits_BV = model(new_BT, past_key_values=cache, logits_to_keep=1).logits[:, -1]
            mean_BV += logits_BV.softmax(-1) / len(models)
        new_BT = torch.multinomial(mean_BV, 1, generator=generator)
        ids_BT = torch.cat([ids_BT, new_BT], dim=1)
    return ids_BT


@dataclass(frozen=True)
class Student:
    """One distilled model: what it reads, and how long."""

    name: str
    parts: int  # that the ensemble has written, read beside the U passages
    epochs: int
    decay: float


def distill(student: Student, data: Data, held: Held) -> None:
    path = student_path(student)
    if not path.exists():
        setting, _ = treated_setting({"seed": STUDENT_SEED})
        setting = replace(setting, decay=student.decay, dropout=0.0)
        parts = [read_by_student(part, data) for part in range(student.parts + 1)]
        taught = Taught(log_BTV=torch.cat([log_BTV for _, log_BTV in parts]))
        training = Training(setting, data, [taught])
        training.windows = torch.cat([ids_BT for ids_BT, _ in parts])
        half = FOLDER / f"student_{student.name}.pt"
        if half.exists():
            training.load(half)
        last = student.epochs * training.steps_per_epoch
        branch = round((1 - FALL) * last)
        with timed(f"student {student.name}"):
            while training.steps.step < branch:
                training.run(min(branch, training.steps.step + 500))
                training.save(half)
            training.run(last, branch)
        save_weights(training, path)
    loss = held.losses(held.nats(torch.load(path, weights_only=True))).nats_per_token
    print(f"student {student.name}: {loss:.4f}", flush=True)


def student_path(student: Student) -> Path:
    return FOLDER / "weights" / f"student_{student.name}.pt"


STUDENT_SEED = 100
STUDENTS = {
    student.name: student
    for student in (
        Student("sampled", parts=6, epochs=12, decay=0.1),
        Student("longer", parts=6, epochs=24, decay=0.1),
    )
}


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Seconds of processor time, appended to a file."""
    begin = time.process_time()
    yield
    entry = {"stage": stage, "seconds": time.process_time() - begin}
    with (FOLDER / "seconds.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


# Report


def times_data(loss: float, sizes: list[float], losses: list[float]) -> float:
    """Where the baseline's curve through (sizes, losses) is as low as ``loss``; never beyond it.

    Sizes rise and losses fall. A loss between two sizes is placed on L = E + B / D^beta through
    these two and the one before them (at the start, after them).
    """
    if loss >= losses[0]:
        return sizes[0]
    if loss <= losses[-1]:
        return sizes[-1]
    segment = next(k for k in range(len(sizes)) if loss > losses[k + 1])
    first = min(max(segment - 1, 0), len(sizes) - 3)
    (d1, d2, d3), (l1, l2, l3) = sizes[first : first + 3], losses[first : first + 3]

    def share(beta: float, size: float) -> float:
        """Of the way from the first loss to the third; log-linear as beta goes to 0."""
        if abs(beta) < 1e-9:
            return math.log(size / d1) / math.log(d3 / d1)
        return (d1**-beta - size**-beta) / (d1**-beta - d3**-beta)

    beta = bisected(lambda beta: share(beta, d2) - (l1 - l2) / (l1 - l3), -8.0, 8.0)
    wanted = (l1 - loss) / (l1 - l3)
    return bisected(lambda size: share(beta, size) - wanted, d1, d3)


def bisected(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def report(data: Data, validation: Held) -> None:
    """The only stage that reads the test speeches."""
    held = Held("test", data)
    tokens_G = np.unique(held.groups_N, return_counts=True)[1]
    searches: dict[str, CoordinateSearch] = {}
    conditions: dict[str, np.ndarray] = {}  # seeds or one, by groups: summed nats
    trained: dict[str, tuple[Setting, float]] = {}
    paths = {"regularized": seed_paths()}

    def nats_N(path: Path) -> np.ndarray:
        return held.nats(torch.load(path, weights_only=True))

    for times in TIMES:
        name = f"baseline_{times}"
        searches[name] = baseline(times, data, validation, trains=False)
        chosen = searches[name].chosen
        assert chosen is not None
        trained[name] = setting_at(Setting(times=times), chosen.point)
        paths[name] = kept_seeds(*trained[name])
        conditions[name] = np.stack([held.losses(nats_N(path)).nll_nats_D for path in paths[name]])
    searches["regularized"] = regularized(data, validation, trains=False)
    trained["regularized"] = treated_setting({})
    seeds = ensemble_losses(np.stack([nats_N(path) for path in seed_paths()]), held.groups_N)
    conditions["regularized"] = np.stack([seeds.nats_SG[k] for k in range(SEEDS)])
    conditions["seeds"] = seeds.nats_G(SEEDS)[None]
    conditions["seeds_limit"] = seeds.fitted_nats_G()[None]
    limit = asymptote(seeds)
    assert isinstance(limit, Asymptote)
    mixed_N = mixture_nats(np.stack([nats_N(path) for path in selected_paths()]))
    conditions["ensemble"] = held.losses(mixed_N).nll_nats_D[None]
    students = {name: each for name, each in STUDENTS.items() if student_path(each).exists()}
    for name, each in students.items():
        conditions[f"student_{name}"] = held.losses(nats_N(student_path(each))).nll_nats_D[None]

    loss = {
        name: float(sums_SG.mean(0).sum() / tokens_G.sum()) for name, sums_SG in conditions.items()
    }
    sizes = [data.tokens(times) / data.tokens(1) for times in TIMES]
    treatments = [name for name in conditions if not name.startswith("baseline")]
    resamples = [measured(loss, sizes, treatments)]
    generator = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        drawn_G = np.bincount(generator.integers(len(tokens_G), size=len(tokens_G)))
        drawn_G = np.pad(drawn_G, (0, len(tokens_G) - len(drawn_G)))
        again = {}
        for name, sums_SG in conditions.items():
            mean_G, num = sums_SG.mean(0), len(sums_SG)
            if num > 1:  # the mean of num draws varies (num - 1) / num as much as it should
                moved_G = sums_SG[generator.integers(num, size=num)].mean(0) - mean_G
                mean_G = mean_G + math.sqrt(num / (num - 1)) * moved_G
            again[name] = float(mean_G @ drawn_G / (tokens_G @ drawn_G))
        resamples.append(measured(again, sizes, treatments))
    figures = dict(resamples[0])
    for name in resamples[0]:
        low, high = np.quantile([each[name] for each in resamples[1:]], [0.025, 0.975])
        figures |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    for suffix in ("", "_low", "_high"):
        figures[f"times_data{suffix}"] = figures[f"times_data_ensemble{suffix}"]
    if students:
        on_validation = {
            name: validation_loss(student_path(students[name]), validation) for name in students
        }
        best = min(students, key=on_validation.__getitem__)
        for suffix in ("", "_low", "_high"):
            figures[f"times_data_student{suffix}"] = figures[f"times_data_student_{best}{suffix}"]
            figures[f"distilled_share{suffix}"] = figures[f"share_student_{best}{suffix}"]
            figures[f"distilled_share_of_ensembling{suffix}"] = figures[
                f"share_of_ensembling_student_{best}{suffix}"
            ]
    figures |= {f"nats_per_token_{name}": value for name, value in loss.items()}
    figures |= {
        "largest_data": sizes[-1],
        "tokens_u": data.tokens(1),
        "parameters": sum(p.numel() for p in new_model(WIDTH, 0).parameters()),
        "members": len(selected_paths()),
        "baseline_seeds": min(len(conditions[f"baseline_{times}"]) for times in TIMES),
        "seeds": SEEDS,
        "seeds_limit_low": limit.limit.interval.low,
        "seeds_limit_high": limit.limit.interval.high,
        "test_speeches": len(tokens_G),
        "test_tokens": int(tokens_G.sum()),
        "core_minutes": sum(json.loads(line)["seconds"] for line in lines_of("seconds")) / 60,
    }
    table = [
        {"arm": name, "times": setting.times, "epochs": epochs, **asdict(setting)}
        | {
            "certificate": searches[name].to_json(),
            "validation_of_seeds": [validation_loss(path, validation) for path in paths[name]],
        }
        for name, (setting, epochs) in trained.items()
    ]
    table += [{"arm": "ensemble", **json.loads(SELECTED.read_text())}]
    table += [
        {
            "arm": "pool",
            "models": [
                changes
                | {
                    "validation": validation_loss(
                        weights_path(*treated_setting(changes)), validation
                    )
                }
                for changes in trained_pool()
            ],
        }
    ]
    table += [{"arm": f"student_{name}", **asdict(each)} for name, each in students.items()]
    path = write_record(
        "data_efficiency",
        figures,
        table=table,
        seeds=list(range(SEEDS)),
        data_sha256=data.sha256,
        command="python benchmarks/data_efficiency.py --report",
        note=NOTE,
    )
    print(json.dumps(figures, indent=1), path)


def validation_loss(path: Path, validation: Held) -> float:
    nats_N = validation.nats(torch.load(path, weights_only=True))
    return validation.losses(nats_N).nats_per_token


def lines_of(name: str) -> list[str]:
    path = FOLDER / f"{name}.jsonl"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def measured(loss: dict[str, float], sizes: list[float], treatments: list[str]) -> dict[str, float]:
    curve = [loss[f"baseline_{times}"] for times in TIMES]
    found = {f"times_data_{name}": times_data(loss[name], sizes, curve) for name in treatments}
    gain = curve[0] - loss["ensemble"]
    for name in treatments:
        if name.startswith("student_"):
            found[f"share_{name}"] = (curve[0] - loss[name]) / gain
            found[f"share_of_ensembling_{name}"] = (loss["regularized"] - loss[name]) / (
                loss["regularized"] - loss["ensemble"]
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune-baseline", type=int, nargs="*", choices=TIMES, metavar="TIMES")
    parser.add_argument("--baseline-seeds", type=int, nargs="*", choices=TIMES, metavar="TIMES")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="*", metavar="SEED")
    parser.add_argument("--tried", action="store_true")
    parser.add_argument("--select", action="store_true")
    parser.add_argument("--sample", type=int, nargs="+", metavar="PART", help="parts beforehand")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--distill", choices=list(STUDENTS), nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    data = Data()
    held = Held("validation", data)
    print({times: data.tokens(times) for times in TIMES}, len(held.groups_N), flush=True)
    if options.tune_baseline is not None:
        for times in options.tune_baseline or TIMES:
            print(baseline(times, data, held, trains=True).sentence, flush=True)
    for times in () if options.baseline_seeds is None else options.baseline_seeds or TIMES:
        baseline_seeds(times, data, held)
    if options.search:
        print(regularized(data, held, trains=True).sentence, flush=True)
    if options.seeds is not None:
        train_seeds(options.seeds or list(range(SEEDS)), data)
    if options.tried:
        train_tried(data)
    if options.select:
        select(held)
    for part in options.sample or []:
        read_by_student(part, data)
    if options.distill is not None:
        for name in options.distill or list(STUDENTS):
            distill(STUDENTS[name], data, held)
    if options.report:
        report(data, held)


if __name__ == "__main__":
    main()
