"""Parameters of the model and tokens of the data that a question is about, and facts of both."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heldout.core.progress import Progress
from heldout.core.results.advice import Fact
from heldout.core.results.learning_curve import LearningCurve
from heldout.jobs.planning.question import Question

if TYPE_CHECKING:
    from heldout.lm.load import LoadedModel


@dataclass(frozen=True)
class Counted:
    """None where it is open; ``facts`` are of a pretrained model and its data."""

    parameters: float | None
    non_embedding: float | None
    unique_tokens: float | None
    learning_curve: LearningCurve | None = None
    facts: tuple[Fact, ...] = ()


def count(question: Question, folder: Path | None, progress: Progress) -> Counted:
    """What the numbers of the question are, and the learning curve where it is to be measured.

    A model is loaded for it. The curve's trainings lie in ``folder``, where they can be resumed.
    """
    if not question.model.name:
        return Counted(question.model.parameters, None, question.data.unique_tokens)
    # With torch, which a question in numbers does not need.
    from heldout.jobs.kit.chosen_recipe import recipe_for
    from heldout.jobs.kit.learning_curve import learning_curve
    from heldout.jobs.kit.parts import read_parts
    from heldout.jobs.kit.target import Target
    from heldout.jobs.planning.fine_tuning_facts import TokensRead, free_memory, measured_facts
    from heldout.lm.quiet import quiet_libraries

    target = Target.of(question.model.name, question.model.from_scratch)
    with quiet_libraries(), progress.stage("counting parameters and tokens"):
        recipe = recipe_for(target, question.recipe, question.settings)
        free = free_memory()
        loaded = target.load(recipe)
        total, non_embedding = _parameters(loaded)
        if not question.data.path:
            return Counted(total, non_embedding, question.data.unique_tokens)
        parts = read_parts(question.data.path, recipe)
        tokens = TokensRead.of(parts.train, loaded.tokenizer, recipe.data.max_length)
    facts = []
    if question.model.is_pretrained:
        with quiet_libraries():
            facts = measured_facts(parts, loaded, recipe, tokens, free, progress)
    curve = None
    if question.data.measure:
        kept = folder / "learning_curve" if folder else None
        curve = learning_curve(target, parts, recipe, folder=kept, progress=progress)
    return Counted(total, non_embedding, float(tokens.scored), curve, tuple(facts))


def _parameters(loaded: "LoadedModel") -> tuple[float, float]:
    """All, and those outside the embeddings, tied ones counted once."""
    ends = (loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings())
    shared = {id(each.weight): each.weight.numel() for each in ends if each is not None}
    return float(loaded.parameters), float(loaded.parameters - sum(shared.values()))
