"""What is planted: causes, impostors and healthy trainings; and what mends each cause alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from training import FULL_RATE, LORA_RATE, NUM_TRAIN, WELL_REGULARIZED, Plan

SEEDS = range(5)
CAUSES = (
    "too_many_epochs",
    "learning_rate_too_high",
    "capacity_against_data",
    "duplicates",
    "label_noise",
    "weak_regularization",
    "distribution_shift",
    "forgetting",
)
IMPOSTORS = (
    "eos_lost",
    "masking_broken",
    "doubled_bos",
    "wrong_chat_template",
    "validation_leaked",
    "underfitting",
    "tokenizer_mismatch",
)
HEALTHY = "healthy"
ANSWERS = {  # text -> with prompts
    "topics": "factbook",
    "moby_dick": "glosses",
    "docstrings": "packages",
    "manuals": "packages",
    "features": "commands",
    "npm": "commands",
}
LORA_REGULARIZED = {"weight_decay": {"rate": 0.1}, "dropout": {"adapter": 0.05}}  # as by default


@dataclass(frozen=True)
class Case:
    """One diagnosis; ``planted`` is a cause, an impostor or healthy."""

    name: str
    planted: str
    plan: Plan

    @property
    def asks_for_general_text(self) -> bool:
        """Only who asks what was forgotten gives general text."""
        return self.planted == "forgetting"


def cases(texts: Sequence[str], seeds: Sequence[int], num_healthy: int) -> list[Case]:
    """Every cause and impostor with each seed, in turn on the texts, then the healthy ones."""
    found = []
    for number, seed in enumerate(seeds):
        for planted in (*CAUSES, *IMPOSTORS):
            text = texts[number % len(texts)]
            found.append(
                Case(f"{planted}-{text}-{seed}", planted, planted_plan(planted, text, seed))
            )
    for number in range(num_healthy):
        text, seed = texts[number % len(texts)], seeds[0] + number // len(texts)
        plan = healthy_plan(number // len(texts), text, seed)
        found.append(Case(f"{HEALTHY}-{text}-{seed}", HEALTHY, plan))
    return found


def planted_plan(planted: str, text: str, seed: int) -> Plan:
    """The healthy plan with one thing wrong; how much varies with the seed."""
    healthy = Plan(text, seed)
    more = seed % 2
    if planted in ("masking_broken", "wrong_chat_template"):
        healthy = replace(healthy, text=ANSWERS.get(text, text))
    if planted == "too_many_epochs":
        return replace(healthy, epochs=(12, 15)[more])
    if planted == "learning_rate_too_high":
        return replace(healthy, rate=FULL_RATE * (12, 20)[more])
    if planted == "capacity_against_data":
        return replace(healthy, num_train=(10, 14)[more], epochs=6, keep_best=True)
    if planted == "duplicates":
        return replace(healthy, num_train=(56, 64)[more], num_copied=4, copies=(24, 20)[more])
    if planted == "label_noise":
        return replace(healthy, wrong_share=(0.5, 0.4)[more])
    if planted == "weak_regularization":
        return replace(healthy, epochs=(8, 7)[more], regularizers={}, keep_best=True)
    if planted == "distribution_shift":
        return replace(healthy, other_text=True, as_text=True, keep_best=True)
    if planted == "forgetting":
        return replace(healthy, epochs=(5, 4)[more], keep_best=True)
    if planted == "underfitting":
        return replace(healthy, epochs=1, rate=FULL_RATE * (0.1, 0.05)[more])
    return replace(healthy, fault=planted)


def healthy_plan(number: int, text: str, seed: int) -> Plan:
    """Sizes, rates and methods in turn; the lowest validation loss is kept, as a user should."""
    plan = Plan(
        text,
        seed,
        num_train=(40, 48, 64, 96)[number % 4],
        epochs=(4, 3, 3, 2)[number % 4],
        rate=FULL_RATE * (1, 0.7, 1.4)[number % 3],
        keep_best=True,
    )
    if number % 5 == 1:  # nothing regularizes, and nothing needs it
        return replace(plan, regularizers={}, epochs=2, rate=FULL_RATE)
    if number % 5 == 2:
        return replace(plan, regularizers=WELL_REGULARIZED)
    if number % 5 == 4:
        return replace(plan, method="lora", rate=LORA_RATE, regularizers=LORA_REGULARIZED, epochs=4)
    return plan


def repairs(case: Case, best_epoch: float) -> dict[str, Plan]:
    """Cause -> the plan with that one thing mended; what is not wrong is no repair.

    ``best_epoch`` is that of the lowest validation loss of the case itself.
    """
    plan = case.plan
    found = {}
    if 0 < best_epoch < plan.epochs and not plan.keep_best:
        found["too_many_epochs"] = replace(plan, epochs=best_epoch)
    if plan.rate > FULL_RATE:
        found["learning_rate_too_high"] = replace(plan, rate=FULL_RATE)
    if plan.num_train < NUM_TRAIN // 2 and not plan.num_copied:
        found["capacity_against_data"] = replace(plan, num_train=NUM_TRAIN)
    if plan.num_copied:
        found["duplicates"] = replace(plan, num_copied=0, copies=0)
    if plan.wrong_share:
        found["label_noise"] = replace(plan, wrong_share=0.0)
    if not plan.regularizers:
        found["weak_regularization"] = replace(plan, regularizers=WELL_REGULARIZED)
    if plan.other_text:
        found["distribution_shift"] = replace(plan, other_text=False)
    if case.asks_for_general_text:
        # Replay of a few dozen rows mended nothing on a model that small.
        kept_near = {**plan.regularizers, "kl_to_base": {"weight": 1.0}}
        found["forgetting"] = replace(plan, regularizers=kept_near)
    return found
