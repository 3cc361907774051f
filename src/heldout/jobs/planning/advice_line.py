"""The advised recipe in one line, for a plan that loads no model a second time."""

from heldout.core.recipe import Recipe
from heldout.core.run_files import PreflightCheck
from heldout.jobs.kit.parts import Parts
from heldout.jobs.planning.fine_tuning_facts import counted_facts
from heldout.jobs.planning.recipe_rules import GOALS, recipe_advice


def advice_line(
    parts: Parts, parameters: int, free: float | None, chosen: Recipe, *, adapter: bool
) -> PreflightCheck:
    """What rows and sizes alone advise, beside the recipe that was ``chosen``.

    free: bytes on the device that trains; adapter: whether the model is one already.
    """
    facts = counted_facts(parts, parameters, free, adapter=adapter)
    advice = recipe_advice(facts, GOALS[0])
    settings = [f"--set {setting}" for setting in advice.settings]
    said = ["first a clean copy"] if advice.cleans else []
    said.append(" ".join([f"--recipe {advice.recipe}", *settings]))
    if advice.recipe == chosen.name and not settings:
        said.append("as here")
    kind, names = advice.choice("recipe").rests_on
    said += [f"{kind}: {names}", "why: heldout plan advise"]
    return PreflightCheck("advice", "ok", "; ".join(said))
