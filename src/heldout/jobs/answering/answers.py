"""Prompts of one's own, answered by the kept model of a run and by its base."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.damage import refuse_damaged
from heldout.core.decoding import Decoding
from heldout.core.errors import UserError
from heldout.core.results.answers import Answer, CopiedText, Written
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.token_size import TokenSize
from heldout.core.verbatim import VerbatimIndex
from heldout.jobs.kit.target import Target
from heldout.jobs.kit.token_size import saved_token_size
from heldout.lm.accelerator import training_device
from heldout.lm.characters import decoded
from heldout.lm.generate import continued_ids, new_tokens
from heldout.lm.load import LoadedModel, load_model
from heldout.lm.measuring.corpora import corpora
from heldout.lm.nll import context_length
from heldout.lm.quiet import quiet_libraries
from heldout.lm.special_tokens import prompted_ids
from heldout.lm.tokenize import prompt_ids

NEW_TOKENS = 128  # of English, unless asked for
LEAST_COPY = 12  # tokens of English; shorter stretches are said by everyone


def answers(
    target: str | Path | Run,
    prompts: str | Iterable[str],
    *,
    system: str = "",
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    trust_code: bool = False,
) -> Iterator[Answer]:
    """What ``best/`` of a run and its base answer to each prompt, one after another, lazily.

    target: a run folder, or the ``heldout.Run``. prompts: one, or any number; each stands alone,
    none is told of the others. Where the rows were conversations, a prompt is a user's message in
    the chat template, behind ``system`` if given; else the model goes on from the prompt as it is.
    max_new_tokens: of each answer, by default 128 (more of tokens that hold little text).
    temperature: 0 is greedy; else answers are drawn, the same ones with the same ``seed``.
    trust_code: run code that the run's recipe names, a model's own.

    An answer tells the longest stretch that it repeats word for word from a training row, where
    that is 12 tokens of English or more; the base's answer is the control. Loads both models and
    the training rows at once. Raises UserError for what cannot be asked.
    """
    run = target if isinstance(target, Run) else Run.open(Path(target))
    if not trust_code:
        run.refuse_own_code()
    refuse_damaged(run)
    if not run.best.is_dir():
        raise UserError(
            f"{run.folder} has no best/, so there is no model to ask: `heldout fit --resume "
            f"{run.folder}` goes on."
        )
    is_chat = run.read_json("data.json").get("kind") == "conversation"
    if system and not is_chat:
        raise UserError(
            "--system goes with a model that was trained on conversations: leave it out, or write "
            "it into the prompt."
        )
    decoding = Decoding(temperature=temperature)
    if max_new_tokens is not None and max_new_tokens < 1:
        raise UserError(f"--max-new-tokens must be 1 or more, got {max_new_tokens}.")
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed must be 0 or more and under 2 ** 63, got {seed}.")
    with quiet_libraries():
        models = _load(run)
        _refuse_too_many(models["best"], max_new_tokens)
        tokenizer = models["best"].tokenizer
        searched = corpora(run.read_rows("train"), [], tokenizer).train
    size = saved_token_size(run)
    asking = _Asking(models, is_chat, system, decoding, max_new_tokens, seed, size, searched)
    return map(asking.answer, [prompts] if isinstance(prompts, str) else prompts)


@dataclass(frozen=True)
class _Asking:
    """Both models, loaded, with the settings of every answer."""

    models: dict[str, LoadedModel]
    is_chat: bool
    system: str
    decoding: Decoding
    max_new_tokens: int | None
    seed: int
    size: TokenSize
    searched: VerbatimIndex

    def answer(self, prompt: str) -> Answer:
        if any("\ud800" <= character <= "\udfff" for character in f"{self.system}{prompt}"):
            raise UserError("A prompt is not text in UTF-8: convert it, by `iconv` for one.")
        with quiet_libraries():
            written = {name: self._written(loaded, prompt) for name, loaded in self.models.items()}
            best, is_cut = written["best"]
            base = written["base"][0] if "base" in written else None
        return Answer(prompt, best, base, is_cut)

    def _written(self, loaded: LoadedModel, prompt: str) -> tuple[Written, bool]:
        """And whether the prompt had to be cut."""
        ids = self._ids(loaded.tokenizer, prompt)
        most = self.max_new_tokens or new_tokens(loaded.model, NEW_TOKENS, self.size)
        limit = context_length(loaded.model)
        if limit is not None:
            most = min(most, limit - 1)
        start = time.monotonic()
        (found,), (ended,) = continued_ids(
            loaded.model, loaded.tokenizer, [ids], most, decoding=self.decoding, seed=self.seed
        )
        seconds = time.monotonic() - start
        text = decoded(loaded.tokenizer, found)
        copied = self._copied(np.array(found, dtype=np.int32), loaded.tokenizer)
        is_cut = limit is not None and len(ids) > limit - most
        return Written(text, len(found), seconds, ended, copied), is_cut

    def _ids(self, tokenizer: Any, prompt: str) -> list[int]:
        if not self.is_chat:
            return prompted_ids(tokenizer, prompt)
        first = ({"role": "system", "content": self.system},) if self.system else ()
        row = Row(0, (*first, {"role": "user", "content": prompt}), "", where="The prompt")
        return prompt_ids(row, tokenizer)[0]

    def _copied(self, ids_T: np.ndarray, tokenizer: Any) -> CopiedText | None:
        if not len(ids_T):
            return None
        lengths, places = self.searched.matches(ids_T)
        first = int(np.argmax(lengths))
        length = int(lengths[first])
        if length < self.size.tokens(LEAST_COPY):
            return None
        document, _ = self.searched.document_of(int(places[first]))
        ids = ids_T.tolist()
        start, stop = (len(decoded(tokenizer, ids[:end])) for end in (first, first + length))
        return CopiedText(int(self.searched.rows_D[document]), length, start, stop)


def _load(run: Run) -> dict[str, LoadedModel]:
    """The base first; none where the run began with random weights."""
    recipe, known = run.recipe, run.read_json("environment.json")
    models = {}
    if not known.get("from_scratch"):
        models["base"] = Target(known["model"]).load(recipe)
    models["best"] = load_model(
        str(run.best),
        device=training_device(),
        trust_remote_code=recipe.model.trust_remote_code,
    )
    return models


def _refuse_too_many(loaded: LoadedModel, max_new_tokens: int | None) -> None:
    limit = context_length(loaded.model)
    if limit is not None and max_new_tokens is not None and max_new_tokens >= limit:
        raise UserError(
            f"--max-new-tokens must be under {limit}, what this model can read, got "
            f"{max_new_tokens}."
        )
