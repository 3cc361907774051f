"""From the members' losses of every token to an ensemble's typed result."""

from collections.abc import Sequence
from pathlib import Path

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.recipe import Recipe
from heldout.core.results.ensemble import (
    Asymptote,
    EnsembleResult,
    FittedLoss,
    Member,
    ServingCost,
    SizeLoss,
)
from heldout.core.run import Run
from heldout.core.stats import group_sums, paired_difference
from heldout.core.token_losses import TokenLosses
from heldout.jobs.ensembles.members import stacked_nats, unfinished
from heldout.jobs.kit.target import Target
from heldout.scaling.ensemble import EnsembleLosses, asymptote, ensemble_losses, fitted_loss

_CURVE_TO = 4  # times the members: how far the fitted law is drawn


def ensemble_result(
    target: Target, data: str, folder: Path, runs: Sequence[Run], read: Sequence[TokenLosses]
) -> EnsembleResult:
    """Losses of ensembles of every size, their limit, what they cost and how it reads."""
    losses = ensemble_losses(stacked_nats(read), read[0].group_index_N)
    num = len(runs)
    limit = asymptote(losses)
    curve: tuple[FittedLoss, ...] = ()
    if isinstance(limit, Asymptote):
        curve = tuple(fitted_loss(losses, size) for size in range(1, _CURVE_TO * num + 1))
    sizes = []
    for size in range(1, num + 1):
        level, gain = losses.estimate(size), losses.gain(size)
        sizes.append(
            SizeLoss(
                size,
                losses.num_subsets(size),
                level.value,
                level.interval,
                gain.value,
                gain.interval,
            )
        )
    members = tuple(_member(run, losses, number) for number, run in enumerate(runs))
    measurements = _measurements(runs, losses, members, limit)
    about = runs[0].read_json("data.json")
    return EnsembleResult(
        model=target.model,
        from_scratch=target.from_scratch,
        data=data,
        sha256=about["sha256"],
        num_documents=len(read[0].num_tokens_D),
        num_groups=losses.num_groups,
        num_tokens=len(read[0].nats_N),
        members=members,
        sizes=tuple(sizes),
        limit=limit if isinstance(limit, Asymptote) else None,
        curve=curve,
        measurements=tuple(measurements),
        cost=_cost(runs),
        headline=_in_words(sizes[-1], limit),
        notes=(*_notes(runs[0].recipe, target, losses, limit), *unfinished(runs)),
        report=str(folder / "report.html"),
    )


def _member(run: Run, losses: EnsembleLosses, number: int) -> Member:
    level = losses.estimate_of((number,))
    kept = run.losses("best", "validation")
    assert kept is not None, "a complete run on a split has them"
    return Member(
        run.folder.name,
        run.recipe.train.seed,
        level.value,
        level.interval,
        kept.nats_per_token,
        run.read_json("result.json")["best_epoch"],
    )


def _measurements(
    runs: Sequence[Run],
    losses: EnsembleLosses,
    members: Sequence[Member],
    limit: Asymptote | NotMeasured,
) -> list[Measurement | NotMeasured]:
    num, tokens_G = losses.num_members, losses.num_tokens_G
    all_G = losses.nats_G(num)
    groups = range(losses.num_groups)
    lowest = min(range(num), key=lambda number: members[number].validation_nats_per_token)
    controls = {
        "one member": losses.nats_G(1),
        "the member of lowest validation loss": losses.nats_of((lowest,)),
    }
    base = runs[0].losses("base", "test")
    if isinstance(base, DocumentLosses):
        controls["the model before training"] = group_sums(base.nll_nats_D, base.groups_D)
    contrasts = {
        name: paired_difference(all_G, nats_G, tokens_G, groups).as_contrast()
        for name, nats_G in controls.items()
    }
    one, whole = losses.estimate(1), losses.estimate(num)
    unit = "nats per token"
    found: list[Measurement | NotMeasured] = [
        Measurement(
            "one_member",
            one.value,
            unit,
            one.num_groups,
            "group",
            one.interval,
            note=f"the mean over {num} members",
        ),
        Measurement(
            "ensemble",
            whole.value,
            unit,
            whole.num_groups,
            "group",
            whole.interval,
            contrasts,
            f"the mean of the probabilities of {num} members",
        ),
    ]
    if isinstance(limit, NotMeasured):
        return [*found, limit]
    return [
        *found,
        Measurement(
            "ensemble_limit",
            limit.limit.value,
            unit,
            losses.num_groups,
            "group and member",
            limit.limit.interval,
            note="L_inf of L(K) = L_inf + A / K: members without end",
        ),
        Measurement(
            "ensemble_remaining",
            limit.remaining,
            unit,
            losses.num_groups,
            "group and member",
            limit.remaining_interval,
            note=f"A / {num}: what more members could still gain",
        ),
    ]


def _cost(runs: Sequence[Run]) -> ServingCost:
    """LoRA members share one base; members trained whole share nothing."""
    found = runs[0].read_json("result.json")
    one, trained = found["parameters"], found["trained_parameters"]
    shared = one - trained if found["method"] == "lora" else 0
    return ServingCost(len(runs), shared + len(runs) * (one - shared), one)


def _in_words(whole: SizeLoss, limit: Asymptote | NotMeasured) -> str:
    bounds = whole.gain_interval
    words = (
        f"Averaging {whole.size} members lowers the test loss by {whole.gain:.3f} nats per token "
        f"(95 %: {bounds.words()})"
    )
    if bounds.low <= 0:
        words = (
            f"Averaging {whole.size} members does not surely lower the test loss: by "
            f"{whole.gain:.3f} nats per token (95 %: {bounds.words()})"
        )
    if isinstance(limit, NotMeasured):
        return f"{words}."
    ends = limit.limit.interval
    return (
        f"{words}; members without end would reach {limit.limit.value:.3f} (95 %: {ends.words()})."
    )


def _notes(
    recipe: Recipe, target: Target, losses: EnsembleLosses, limit: Asymptote | NotMeasured
) -> list[str]:
    said = [
        "Intervals of gains and of single sizes are over groups of test documents, given these "
        "members."
    ]
    if isinstance(limit, Asymptote):
        said += [
            "The limit's interval leaves out members as well as groups, one at a time. "
            + limit.condition,
            f"The law misses the measured sizes by at most {limit.largest_miss:.4f} nats per "
            "token.",
        ]
    else:
        said.append(f"No limit is given: {limit.reason}.")
    if not target.from_scratch:
        differ = "the order of the rows"
        if recipe.model.method == "lora":
            differ = "the order of the rows and in the start of their adapters"
        said.append(
            f"The members start from the same weights and differ in {differ}: they resemble each "
            "other more than members from scratch do."
        )
    if losses.num_groups < 30:
        said.append(f"{losses.num_groups} groups of test documents are few for a claim.")
    return said
