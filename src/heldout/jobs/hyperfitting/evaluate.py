"""Continue the test contexts with every model and decoding, one file of text per condition."""

from dataclasses import dataclass
from typing import Any

from heldout.core.decoding import GREEDY, Decoding
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.jobs.hyperfitting.texts import Contexts, contexts_of, decoded, write
from heldout.jobs.hyperfitting.train import EARLY_STOPPED, WindowSample
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.target import Target
from heldout.jobs.kit.token_size import token_size_of
from heldout.lm.accelerator import training_device
from heldout.lm.citation_blocker import CitationBlocker
from heldout.lm.load import LoadedModel, load_model
from heldout.lm.measuring.sharpness import sharpness
from heldout.lm.tokenize import tokenize_rows

MODELS = ("base", "best", EARLY_STOPPED)


@dataclass(frozen=True)
class TextCondition:
    """A model with a way of decoding; ``model`` is base, early_stopped or best."""

    name: str
    title: str
    model: str
    decoding: Decoding = GREEDY
    blocked: bool = False


def text_conditions(recipe: Recipe) -> list[TextCondition]:
    """All conditions, in the order of the report."""
    settings = recipe.hyperfit
    top_p = Decoding(temperature=1.0, top_p=settings.top_p)
    min_p = Decoding(temperature=1.0, min_p=settings.min_p)
    penalty = Decoding(repetition_penalty=settings.repetition_penalty)
    return [
        TextCondition("base_greedy", "Base, greedy", "base"),
        TextCondition("hyperfitted_greedy", "Hyperfitted, greedy", "best"),
        TextCondition("early_stopped_greedy", "Early-stopped, greedy", EARLY_STOPPED),
        TextCondition("base_top_p", f"Base, top-p {settings.top_p:g}", "base", top_p),
        TextCondition("hyperfitted_blocker", "Hyperfitted, blocker", "best", blocked=True),
        TextCondition("base_min_p", f"Base, min-p {settings.min_p:g}", "base", min_p),
        TextCondition(
            "base_repetition_penalty",
            f"Base, repetition penalty {settings.repetition_penalty:g}",
            "base",
            penalty,
        ),
        TextCondition("hyperfitted_top_p", f"Hyperfitted, top-p {settings.top_p:g}", "best", top_p),
    ]


def evaluate(context: RunContext) -> None:
    """Write what is missing of contexts, texts of each condition, and sharpness of each model.

    One model is in memory at a time. Files: ``contexts.json``, ``texts/CONDITION.json``,
    ``sharpness/MODEL.npz``.
    """
    run = context.run
    for name in ("texts", "sharpness"):
        run.path(name).mkdir(exist_ok=True)
    todo = [
        condition
        for condition in text_conditions(context.recipe)
        if not run.path(_texts_of(condition)).exists()
    ]
    unread = [name for name in MODELS if not run.path(_sharpness_of(name)).exists()]
    if not todo and not unread:
        return
    with context.progress.stage("test contexts", len(todo) + len(unread)):
        for name in MODELS:
            own = [condition for condition in todo if condition.model == name]
            if own or name in unread:
                _evaluate_model(context, name, own, name in unread)


def _evaluate_model(
    context: RunContext, name: str, conditions: list[TextCondition], is_unread: bool
) -> None:
    run, recipe = context.run, context.recipe
    loaded = _load(run, context.target, recipe, name)
    contexts = _contexts(run, recipe, loaded.tokenizer)
    for condition in conditions:
        context.check_interrupt()
        run.write_json(_texts_of(condition), _written(run, recipe, loaded, contexts, condition))
        context.progress.advance(1, condition.title)
    if is_unread:
        context.check_interrupt()
        found = sharpness(
            loaded.model,
            contexts.windows,
            loaded.tokenizer.pad_token_id,
            batch_size=recipe.eval.batch_size,
        )
        found.save(run.path(_sharpness_of(name)))
        context.progress.advance(1, name)


def _texts_of(condition: TextCondition) -> str:
    return f"texts/{condition.name}.json"


def _sharpness_of(model: str) -> str:
    return f"sharpness/{model}.npz"


def _written(
    run: Run,
    recipe: Recipe,
    loaded: LoadedModel,
    contexts: Contexts,
    condition: TextCondition,
) -> dict[str, Any]:
    length = token_size_of(run, loaded.tokenizer).tokens(recipe.hyperfit.blocked_ngram)
    blockers = []
    if condition.blocked:
        blockers.append(CitationBlocker.of(run.read_json("sample.json")["trained"], length))
    texts_ids = write(
        loaded.model, loaded.tokenizer, contexts, recipe, condition.decoding, blockers
    )
    return {
        "decoding": condition.decoding.name,
        "blocked_ngram": length if condition.blocked else None,
        "batch_size": recipe.hyperfit.generation_batch,
        "ids": texts_ids,
        "texts": decoded(loaded.tokenizer, texts_ids),
    }


def _load(run: Run, target: Target, recipe: Recipe, name: str) -> LoadedModel:
    if name == "base":
        return target.load(recipe)
    return load_model(
        str(run.path(name)),
        device=training_device(),
        trust_remote_code=recipe.model.trust_remote_code,
    )


def _contexts(run: Run, recipe: Recipe, tokenizer: Any) -> Contexts:
    """The test contexts; the test part is opened once, and the sample is written beside them."""
    if not run.path("sample.json").exists():
        sample = WindowSample(list(run.read_rows("train")), tokenizer, recipe)
        control = sample.left
        if len(control) < len(sample):  # too little text is left: other held-out text
            rows = run.read_rows("validation")
            found = tokenize_rows(rows, tokenizer, recipe.data.max_length)
            control = [each.input_ids for _, tokenized in found for each in tokenized.windows]
        run.write_json(
            "sample.json",
            {
                "trained": [sample.ids_of(place) for place in range(len(sample))],
                "control": control[: len(sample)],
            },
        )
    if not run.path("contexts.json").exists():
        contexts = contexts_of(
            list(run.open_test("contexts to continue", once=True)),
            tokenizer,
            recipe,
            recipe.hyperfit.num_contexts,
            "test",
        )
        run.write_json(
            "contexts.json",
            {
                **vars(contexts),
                "prompt_texts": decoded(tokenizer, contexts.prompts),
                "reference_texts": decoded(tokenizer, contexts.references),
            },
        )
    return load_contexts(run)


def load_contexts(run: Run) -> Contexts:
    """What ``evaluate`` wrote."""
    entry = run.read_json("contexts.json")
    return Contexts(entry["prompts"], entry["references"], entry["groups"], entry["row_index"])
