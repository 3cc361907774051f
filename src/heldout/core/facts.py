"""What is known of a training beyond what is measured: settings, data, history, setup checks."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class HistoryPoint:
    """One evaluation on the way; losses in nats/token, None where they were not measured."""

    step: int
    epoch: float
    train_nll: float | None = None
    validation_nll: float | None = None
    learning_rate: float | None = None
    # Standard error of validation minus the best so far, paired by document, where known.
    validation_error: float | None = None
    extra: dict[str, float] = field(default_factory=dict)  # such as accuracy, ttr, weight_norm


@dataclass(frozen=True)
class SetupFault:
    """One impostor of overfitting, looked for: lost EOS, broken mask, doubled BOS, leak...

    ``status``: found, absent, or unknown with the reason in ``evidence``.
    """

    name: str
    status: Literal["found", "absent", "unknown"]
    evidence: str
    remedy: str = ""
    share: float | None = None  # of the rows, where it is counted by row


@dataclass(frozen=True)
class Facts:
    """Settings and counts; None where unknown. Rules must treat None as missing evidence."""

    num_train_rows: int | None = None
    num_train_groups: int | None = None
    num_train_tokens: int | None = None  # scored tokens of one epoch
    num_heldout_groups: int | None = None
    parameters: int | None = None
    trained_parameters: int | None = None
    method: str | None = None  # lora, full
    from_scratch: bool | None = None
    epochs: float | None = None  # of the judged model
    total_epochs: float | None = None
    learning_rate: float | None = None  # peak
    best_learning_rate: float | None = None  # found by a search, where there was one
    batch_size: int | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    regularizers: tuple[str, ...] = ()
    trains_on_prompts: bool | None = None  # on purpose
    duplicate_share: float | None = (
        None  # of training rows that repeat an earlier one, near or exact
    )
    leak_share: float | None = None  # of held-out rows found in training
    num_heldout_rows: int | None = None  # that were looked for there
    noise_share: float | None = None  # of training rows whose loss stands out as mislabeled
    update_norm: float | None = None  # norm of tuned minus base weights over norm of base
    goal: Literal["generalize", "recite", "style"] = "generalize"
    history: tuple[HistoryPoint, ...] = ()
    greater_is_better: dict[str, bool] = field(default_factory=dict)  # by name of a score, as told
    checks: tuple[SetupFault, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def check(self, name: str) -> SetupFault | None:
        """The check of the setup of that name, if it was made."""
        return next((check for check in self.checks if check.name == name), None)
