"""Norms of a model from scratch: which kind, and where, as an architecture that transformers has.

So checkpoints load anywhere, without code of ours. What a Llama configuration becomes, and what
changes besides the norms:

=====  =============  ========  ===================================================================
norm   position       becomes   besides
=====  =============  ========  ===================================================================
rms    pre            Llama     nothing
layer  pre            StableLM  nothing: no biases, rotary positions throughout, no parallel branch
rms    branch_output  OLMo 2    queries and keys are normed too
layer  post           OPT       learned positions; ReLU without a gate, 1.5 times as wide for the
                                same number of weights; as many key heads as query heads; no final
                                norm
=====  =============  ========  ===================================================================

``pre``: before each branch, Xiong et al. 2020, arXiv 2002.04745. ``post``: after the residual sum,
Vaswani et al. 2017; needs a warmup. ``branch_output``: on what a branch adds, OLMo 2, arXiv
2501.00656. ``layer``: Ba et al. 2016, arXiv 1607.06450; ``rms``: Zhang and Sennrich 2019, arXiv
1910.07467.
"""

from typing import Any

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

from heldout.core.errors import UserError

_MODEL_TYPES = {
    ("rms", "pre"): "llama",
    ("layer", "pre"): "stablelm",
    ("rms", "branch_output"): "olmo2",
    ("layer", "post"): "opt",
}


def with_norms(config: PreTrainedConfig, norm: str, position: str) -> PreTrainedConfig:
    """The configuration of the same sizes whose norms are ``norm`` at ``position``.

    An empty choice is Llama's: rms, pre. Raises UserError for what no architecture has.
    """
    if not norm and not position:
        return config
    if not isinstance(config, LlamaConfig):
        raise UserError(
            f"model.norm and model.norm_position turn a llama configuration into others, not "
            f"{config.model_type}: use a configuration with model_type llama, or leave them out."
        )
    chosen = (norm or "rms", position or "pre")
    if chosen not in _MODEL_TYPES:
        known = ", ".join(f"{n} with {p}" for n, p in _MODEL_TYPES)
        raise UserError(
            f"model.norm={chosen[0]} with model.norm_position={chosen[1]}: no architecture of "
            f"transformers has both. There are: {known}."
        )
    model_type = _MODEL_TYPES[chosen]
    if model_type == "llama":
        return config
    if config.attention_bias or config.mlp_bias:
        raise UserError(
            "model.norm: the configuration has biases (attention_bias, mlp_bias), which the other "
            "architectures do not have: set both to false."
        )
    if config.head_dim != config.hidden_size // config.num_attention_heads:
        raise UserError(
            "model.norm: the other architectures need head_dim to be hidden_size / "
            f"num_attention_heads, got {config.head_dim}: leave head_dim out."
        )
    return AutoConfig.for_model(model_type, **_shared(config), **_own(config, model_type))


def _shared(config: LlamaConfig) -> dict[str, Any]:
    names = (
        "vocab_size hidden_size num_hidden_layers num_attention_heads max_position_embeddings "
        "attention_dropout tie_word_embeddings use_cache bos_token_id eos_token_id pad_token_id"
    )
    return {name: getattr(config, name) for name in names.split()}


def _own(config: LlamaConfig, model_type: str) -> dict[str, Any]:
    if model_type == "opt":
        return {
            "ffn_dim": 3 * config.intermediate_size // 2,  # no gate: two matrices for three
            "do_layer_norm_before": False,
            "enable_bias": False,
            "dropout": 0.0,
            "init_std": config.initializer_range,
        }
    rotary = dict(config.rope_parameters or {})
    values = {
        "intermediate_size": config.intermediate_size,
        "num_key_value_heads": config.num_key_value_heads,
        "hidden_act": config.hidden_act,
        "initializer_range": config.initializer_range,
        "rope_parameters": rotary,
    }
    if model_type == "olmo2":
        return {**values, "rms_norm_eps": config.rms_norm_eps}
    values["rope_parameters"] = {**rotary, "partial_rotary_factor": 1.0}
    return {**values, "layer_norm_eps": config.rms_norm_eps, "partial_rotary_factor": 1.0}
