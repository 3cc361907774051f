"""What else the compute could buy: twice of one thing, or a smaller model to serve."""

from heldout.core.results.advice import Doubled, Doubling, PredictedTraining, Serving
from heldout.jobs.planning.known_law import KnownLaw
from heldout.jobs.planning.sentences import as_guess, in_interval
from heldout.scaling.optimum import Limits
from heldout.scaling.serving import FLOPS_PER_SERVED_TOKEN, Served, cheapest


def doublings(known: KnownLaw, plan: PredictedTraining) -> list[Doubling]:
    """Twice the unique tokens, the parameters, the epochs: each doubles the compute."""
    made = []
    trainings: tuple[tuple[Doubled, float, float, float], ...] = (
        ("data", plan.N, 2 * plan.D, 2 * plan.U),
        ("parameters", 2 * plan.N, plan.D, plan.U),
        ("epochs", plan.N, 2 * plan.D, plan.U),
    )
    longest = 1.001 * known.used.most_epochs
    for what, N, D, U in trainings:
        if longest < D / U:
            reason = f"Not known: {D / U:.3g} epochs, and {known.used.why_most_epochs}."
            made.append(Doubling(what, None, None, None, None, reason))
            continue
        new = known.training(N, D, U)
        change, low, high = known.change(plan, new)
        rises = " It would overfit." if what == "epochs" and change > 0 else ""
        bounds = in_interval(low, high, "+.4f")
        sentence = (
            f"Twice the {what}, at twice the compute: {change:+.4f}{bounds}.{rises}{as_guess(new)}"
        )
        made.append(Doubling(what, new, change, low, high, sentence))
    return made


def cheapest_serving(
    known: KnownLaw, limits: Limits, plan: PredictedTraining, tokens: float
) -> Serving:
    """The cheapest training of the plan's loss when ``tokens`` are to be served."""
    # A hair above, so that the plan's own size reaches it in spite of rounding.
    found = cheapest(known.law, known.values, limits, plan.loss * (1 + 1e-9), tokens)
    own = Served(plan.N, plan.D, plan.flops, FLOPS_PER_SERVED_TOKEN * plan.N * tokens)
    if found is None or found.flops > own.flops:  # the plan is at the bottom of the law's valley
        found = own
    saved = 1 - found.flops / own.flops
    training = known.training(found.N, found.D, limits.U)
    return Serving(
        tokens,
        training,
        found.training_flops,
        found.serving_flops,
        saved,
        f"To serve {tokens:.3g} tokens at the same loss, {found.N:.3g} parameters trained on "
        f"{found.D:.3g} tokens ({training.epochs:.3g} epochs) cost {found.flops:.3g} FLOPs in all, "
        f"{100 * saved:.0f} % less than the plan.{as_guess(training)}",
    )
