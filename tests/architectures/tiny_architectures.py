"""A tiny random model of every causal architecture of transformers, built from its configuration.

What cannot be built, and why, stands in ``NOT_BUILT``. Sizes are shrunk by the names that
configurations give them; what that leaves at odds stands in ``OVERRIDES``. Attention is eager, so
that every rate of dropout reaches a function of torch.
"""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 99
BOS, EOS, PAD = 1, 2, 0

ALL = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

_OF_VALUE = {
    VOCABULARY: "vocab_size decoder_vocab_size vocab_size_per_layer_input",
    32: "hidden_size d_model n_embd emb_dim embedding_dim lru_width attention_hidden_size"
    " embedding_size input_embedding_size output_embedding_size word_embed_proj_dim"
    " linear_attn_hidden backbone_hidden_size router_hidden_size",
    48: "intermediate_size ffn_dim d_inner dff dim_ff ffn_hidden_size decoder_ffn_dim"
    " encoder_ffn_dim feed_forward_size intermediate_size_mlp dense_intermediate_size"
    " expert_ffn_hidden_size shared_intermediate_size",
    24: "moe_intermediate_size shared_expert_intermediate_size"
    " moe_shared_expert_intermediate_size shared_experts_intermediate_size",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers"
    " num_decoder_layers num_encoder_layers num_blocks num_key_value_heads num_kv_heads"
    " swa_num_key_value_heads num_experts_per_tok num_experts_per_token moe_topk moe_k"
    " linear_num_key_heads",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads"
    " encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads"
    " attention_heads num_experts num_local_experts n_routed_experts moe_num_experts"
    " linear_num_heads linear_num_value_heads swa_num_attention_heads index_n_heads"
    " zero_expert_num",
    8: "head_dim dim_head d_head swa_head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim"
    " attention_head_size linear_head_dim linear_key_head_dim linear_value_head_dim index_head_dim"
    " laurel_rank hidden_size_per_layer_input kv_channels query_pre_attn_scalar"
    " pronunciation_embed_dim shape_embed_dim",
    16: "qk_head_dim kv_lora_rank q_lora_rank o_lora_rank sliding_window sliding_window_size"
    " local_attention window_size attention_window_size index_topk state_size ssm_state_size"
    " mamba_d_state chunk_size mamba_chunk_size",
    1: "n_group topk_group num_expert_group mamba_n_groups n_groups first_k_dense_replace",
    128: "max_position_embeddings n_positions n_ctx max_seq_len context_length"
    " max_target_positions max_source_positions original_max_position_embeddings"
    " model_max_length",
}  # fmt: skip
SIZES = {name: value for value, names in _OF_VALUE.items() for name in names.split()}

_LOCAL_THEN_GLOBAL = ["sliding_attention", "full_attention"]
_GEMMA_4 = {"head_dim": 8, "global_head_dim": 8, "layer_types": _LOCAL_THEN_GLOBAL}
_HYBRID = {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2}
_LINEAR_THEN_FULL = {"layer_types": ["linear_attention", "full_attention"]}
_MAMBA_2 = {"mamba_n_heads": 4, "mamba_d_head": 16}

OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA_2, "attn_layer_indices": [1]},
    "blt": {
        "encoder_hash_byte_group_vocab": 50,
        "encoder_hash_byte_group_size": [3, 4],
        "encoder_config": {"hidden_size_global": 32},
        "decoder_config": {"hidden_size_global": 32},
    },
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {
            "ffn_hidden_size": 48,
            "moe_num_experts": 4,
            "moe_top_k": 2,
            "hidden_size": 32,
        },
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"layer_types": ["indexed_attention"] * 2},
    "falcon_h1": {"lm_head_multiplier": 0.5},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "intermediate_size": 48,
        "activation_sparsity_pattern": None,
        "layer_types": _LOCAL_THEN_GLOBAL * 2,
    },
    "gemma4": {"text_config": _GEMMA_4},
    "gemma4_text": {
        **_GEMMA_4,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": _LOCAL_THEN_GLOBAL * 2,
    },
    "gemma4_unified": {"text_config": _GEMMA_4},
    "gemma4_unified_text": _GEMMA_4,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granite": {"logits_scaling": 3.0},
    "granitemoe": {"logits_scaling": 3.0},
    "granitemoehybrid": {
        **_MAMBA_2,
        "layer_types": ["linear_attention", "full_attention"],
        "logits_scaling": 3.0,
    },
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "inkling_text": {"swa_num_attention_heads": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": _LINEAR_THEN_FULL,
    "qwen3_5_text": _LINEAR_THEN_FULL,
    "qwen3_5_moe_text": _LINEAR_THEN_FULL,
    "bailing_hybrid": _LINEAR_THEN_FULL,
    "kimi_linear": _LINEAR_THEN_FULL,
    "qwen3_5": {"text_config": _LINEAR_THEN_FULL},
    "qwen3_5_moe": {"text_config": _LINEAR_THEN_FULL},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "laguna": {"num_attention_heads_per_layer": [4, 8]},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xmod": {"default_language": "en_XX"},
    "zamba": {**_HYBRID, "attention_hidden_size": 64},
    "zamba2": {**_HYBRID, "n_mamba_heads": 8, "mamba_headdim": 8, "attention_hidden_size": 64},
}


NOT_BUILT = {
    "dots3_note": "its defaults for vision and audio do not fit a small text model; see its text",
    "gemma3n": "needs the package timm for its vision; see its text model",
    "gemma4_assistant": "transformers refuses its own default configuration",
    "gemma4_unified_assistant": "transformers refuses its own default configuration",
    "musicgen": "AutoModelForCausalLM gives its decoder a configuration of another model",
    "musicgen_melody": "AutoModelForCausalLM gives its decoder a configuration of another model",
}


def tiny_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The configuration of a model of some thousand weights; ``changes`` come last."""
    values = _shrunk(AutoConfig.for_model(model_type))
    return AutoConfig.for_model(
        model_type, **_merged(values, OVERRIDES.get(model_type, {}), changes)
    )


def tiny_model(model_type: str, *, seed: int = 0, **changes: Any) -> Any:
    """Of random weights, in float32 and in evaluation mode; nothing is dropped in training."""
    config = tiny_config(model_type, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.float().eval()


def _shrunk(config: PreTrainedConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = {*vars(config), *config.attribute_map}
    for name in names:
        try:
            value = getattr(config, name, None)
        except RuntimeError:  # it differs from layer to layer
            value = vars(config).get(name)
        if isinstance(value, PreTrainedConfig):
            found[name] = {**_shrunk(value), "model_type": value.model_type}
        elif name in ("is_decoder", "causal") and value is False:
            found[name] = True
        elif name in SIZES and isinstance(value, int):
            found[name] = min(value, SIZES[name]) if value else value
        elif ("dropout" in name or "pdrop" in name) and isinstance(value, float):
            found[name] = 0.0
        elif name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            found[name] = {"b": BOS, "e": EOS, "p": PAD}[name[0]]
    if "qk_rope_head_dim" in found:  # latent attention has as many keys as queries
        found["num_key_value_heads"] = found["num_attention_heads"]
    # An alias and its name are one value.
    return {n: v for n, v in found.items() if config.attribute_map.get(n) not in found}


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if isinstance(value, dict) and isinstance(found.get(name), dict):
                found[name] = _merged(found[name], value)
            else:
                found[name] = value
    return found
