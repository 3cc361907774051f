"""What ``attach`` refuses: trainers and settings under which a regularizer would be wrong."""

from collections.abc import Sequence
from typing import Any

from accelerate.utils import DynamoBackend
from transformers import Trainer
from transformers.training_args import OptimizerNames

from heldout.core.errors import UserError
from heldout.core.regularizer import Regularizer, overrides_hook
from heldout.training.two_forms import refuse_two_forms


def refuse_unsupported(
    trainer: Trainer,
    regularizers: Sequence[Regularizer],
    *,
    logit_free: bool = False,
    evaluates: bool = False,
) -> None:
    """Raise UserError, naming the alternative, for what would go wrong with this trainer."""
    _refuse_engines(trainer, bool(regularizers) or logit_free)
    _refuse_settings(trainer, regularizers, evaluates)
    adds_to_loss = logit_free or bool(_users(regularizers, "token_loss", "extra_loss"))
    owner = owner_of_loss(trainer) or _encoder_decoder(trainer.model)
    if owner is not None:
        _refuse_under_own_loss(trainer, owner, regularizers, logit_free)
    elif adds_to_loss:
        _refuse_other_losses(trainer)
    if adds_to_loss and trainer.args.use_liger_kernel:
        raise UserError(
            "attach(trainer, ...) does not support use_liger_kernel here, whose fused loss would "
            "be replaced: leave it out. The loss under attach holds no logits either."
        )


def owner_of_loss(trainer: Trainer) -> str | None:
    """The class whose ``compute_loss`` is not next-token cross-entropy; None where it is."""
    for kind in type(trainer).__mro__:
        if "compute_loss" in vars(kind):
            known = (
                kind is Trainer
                or (kind.__module__, kind.__name__) == ("trl.trainer.sft_trainer", "SFTTrainer")
            )  # fmt: skip
            return None if known else kind.__name__
    raise AssertionError


def _encoder_decoder(model: Any) -> str | None:
    """The class of a model whose labels are not shifted: the loss on them is its own."""
    config = getattr(model, "config", None)
    is_one = getattr(config, "is_encoder_decoder", False)
    return f"{type(model).__name__} (encoder-decoder)" if is_one else None


def _refuse_engines(trainer: Trainer, regularized: bool) -> None:
    if trainer.is_deepspeed_enabled:
        raise UserError(
            "attach(trainer, ...) does not support DeepSpeed, which steps inside backward(): use "
            "DDP or FSDP2 through accelerate."
        )
    if trainer.args.n_gpu > 1:
        raise UserError(
            "attach(trainer, ...) does not support nn.DataParallel over several GPUs in one "
            "process: start it with torchrun, or set CUDA_VISIBLE_DEVICES to one GPU."
        )
    if not regularized:
        return
    if trainer.args.fp16:
        raise UserError(
            "attach(trainer, ...) does not support fp16, whose gradients are scaled while "
            "regularizers work on them: use TrainingArguments(bf16=True)."
        )
    if trainer.args.torch_compile:
        raise UserError(
            "attach(trainer, ...) does not support torch_compile, which would not see edits made "
            "during training: leave torch_compile out."
        )
    if trainer.accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        raise UserError(
            "attach(trainer, ...) does not support a dynamo backend of accelerate, which compiles "
            "the model before edits made during training: launch without --dynamo_backend."
        )
    layout = trainer.accelerator.parallelism_config
    if layout is not None and (layout.cp_enabled or layout.sp_enabled or layout.tp_enabled):
        raise UserError(
            "attach(trainer, ...) does not support context, sequence or tensor parallelism, where "
            "no process sees whole sequences and weights: use DDP or FSDP2."
        )


def _refuse_settings(
    trainer: Trainer, regularizers: Sequence[Regularizer], evaluates: bool
) -> None:
    """Settings of the Trainer under which single regularizers would be wrong."""
    if regularizers and trainer.model_init is not None:
        raise UserError(
            "attach(trainer, ...) does not support model_init, which builds another model at the "
            "start of training: pass model=... to the Trainer."
        )
    if trainer.lr_scheduler is not None and (grouping := _users(regularizers, "parameter_options")):
        raise UserError(
            f"{grouping[0]} makes parameter groups of its own, which the given learning-rate "
            "scheduler does not know: pass optimizers=(optimizer, None), or leave them out."
        )
    optimizer = OptimizerNames(trainer.args.optim).value
    if regularizers and (optimizer in ("lomo", "adalomo") or optimizer.endswith("_layerwise")):
        raise UserError(
            f'TrainingArguments(optim="{optimizer}") steps inside backward(), before a regularizer '
            "has seen the gradient: use adamw_torch."
        )
    if optimizer.startswith("schedule_free"):
        refuse_two_forms(f'TrainingArguments(optim="{optimizer}")', regularizers)
    newer = "activation_checkpointing_kwargs"
    name = newer if hasattr(trainer.args, newer) else "gradient_checkpointing_kwargs"
    checkpointing: Any = getattr(trainer.args, name) or {}
    if checkpointing.get("use_reentrant") and (again := _users(regularizers, "extra_loss")):
        raise UserError(
            f"{again[0]} differentiates to inputs, which reentrant gradient checkpointing cannot: "
            f'set {name}={{"use_reentrant": False}}.'
        )
    averaging = _users(regularizers, "evaluation_weights")
    if averaging and trainer.args.load_best_model_at_end and not evaluates:
        raise UserError(
            f"{averaging[0]} does not go with load_best_model_at_end, which would bring back "
            "weights that were not measured: use heldout.fit, or leave it out."
        )
    if trainer.args.neftune_noise_alpha and "NEFTune" in [type(r).__name__ for r in regularizers]:
        raise UserError(
            "TrainingArguments(neftune_noise_alpha=...) is set: leave it out, or NEFTune(...)."
        )


def _refuse_under_own_loss(
    trainer: Trainer, owner: str, regularizers: Sequence[Regularizer], logit_free: bool
) -> None:
    """What cannot work where the trainer computes another loss than next-token cross-entropy."""
    needs_labels = _users(regularizers, "token_loss", "extra_loss", "edit_batch")
    if needs_labels or logit_free:
        what = needs_labels[0] if needs_labels else "logit_free=True"
        raise UserError(
            f"{owner} computes a loss of its own, which {what} would replace by next-token "
            "cross-entropy: leave it out here, or use transformers.Trainer or "
            "trl.SFTTrainer. Regularizers of weights and gradients work."
        )
    if readers := [type(r).__name__ for r in regularizers if r.READS_TOKENS]:
        raise UserError(
            f"{readers[0]} reads the tokens of each batch, which {owner} lays out in a way of "
            "its own: leave it out here, or use transformers.Trainer or trl.SFTTrainer."
        )
    if _generates(trainer) and (around := _users(regularizers, "around_gradient")):
        raise UserError(
            f"{around[0]} computes the gradient of a batch again, while {owner} makes its "
            "batches during the step: leave it out here. Regularizers of weights work."
        )


def _refuse_other_losses(trainer: Trainer) -> None:
    """Settings that change the cross-entropy, which the chunked loss would pass over."""
    if trainer.label_smoother is not None:
        raise UserError(
            "TrainingArguments(label_smoothing_factor=...) is set: use LabelSmoothing(amount=...) "
            "in its place, so that evaluation stays free of smoothing."
        )
    loss_type = getattr(trainer.args, "loss_type", "nll")
    if loss_type != "nll":  # older TRL also sets compute_loss_func for it
        raise UserError(
            f"SFTConfig(loss_type={loss_type!r}) is another loss than cross-entropy, to which "
            'regularizers add: use loss_type="nll".'
        )
    if trainer.compute_loss_func is not None:
        raise UserError("compute_loss_func is set: a regularizer that adds to the loss needs it.")


def _generates(trainer: Trainer) -> bool:
    """Whether batches are made by the model during the step, as in reinforcement learning."""
    return type(trainer)._prepare_inputs is not Trainer._prepare_inputs


def _users(regularizers: Sequence[Regularizer], *hooks: str) -> list[str]:
    users = [r for r in regularizers if any(overrides_hook(r, hook) for hook in hooks)]
    return [type(r).__name__ for r in users]
