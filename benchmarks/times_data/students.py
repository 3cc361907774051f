"""One model distilled from the ensemble, on U and on text that the ensemble writes."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from times_data.held import Held
from times_data.settings import FALL, FOLDER, LENGTH, PASSAGES, VOCABULARY, timed, treated_setting
from times_data.speeches import Data
from times_data.stages import selected_paths
from times_data.trainings import Training, put_in, save_weights
from transformers import DynamicCache

from heldout.core.regularizer import Regularizer, TokenSum
from heldout.lm.passes import Passes
from heldout.regularizers.distillation import distillation_nats, teacher_log_probs

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "pretrain_demo_model"))
from corpus import pack

SAMPLED_WINDOWS = 512  # of a part


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
