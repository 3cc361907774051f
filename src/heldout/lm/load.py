"""Load a causal language model from wherever it lies, or refuse it in one line; never unpickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from heldout.core.collecting import search_as_usual
from heldout.core.errors import UserError
from heldout.lm.accelerator import empty_cache
from heldout.lm.adapter_weights import with_adapter
from heldout.lm.fit_of_weights import one_line, refuse_misfits, wrapper_names
from heldout.lm.gguf import converted_gguf
from heldout.lm.memory import num_weights_in, refuse_too_large, refuse_too_many_bytes
from heldout.lm.norms import with_norms
from heldout.lm.quantized import Quantization, num_parameters
from heldout.lm.source import (
    Source,
    adapter_base,
    check_safetensors,
    find_source,
    read_json,
    tokenizer_folder,
)


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with a tokenizer that has a padding token."""

    model: Any
    tokenizer: Any
    name: str  # what was loaded, such as out/checkpoint-300 where out was asked for
    adapter_of: str | None  # the base, where an adapter was loaded
    parameters: int


def load_model(
    target: str,
    *,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    merge_adapter: bool = True,
    quantization: Quantization | None = None,
) -> LoadedModel:
    """Load a folder, checkpoint, adapter, GGUF file, ``package:NAME`` or Hub id.

    An adapter is merged into its base, so that it can be trained further like any model, unless
    ``merge_adapter`` is False or it has no weights to merge (prompt tuning). Weights come in
    ``dtype`` whatever the configuration says. A GGUF file is converted once, into a cache.

    ``quantization`` says how frozen weights are held, the base's of an adapter, which is then not
    merged. An adapter that heldout trained on a quantized base tells it itself.

    Raises UserError, in one line, for all that cannot be trained here: nothing there, no weights,
    pickled, damaged or incomplete weights, no tokenizer or another model's, an encoder or
    encoder-decoder, code of the model's own without ``trust_remote_code``, no connection.
    """
    source = find_source(str(target))
    if source.path is None:
        source = _adapter_of_hub(source)
    if source.is_adapter:
        return _load_adapter(source, device, dtype, trust_remote_code, merge_adapter, quantization)
    place = source.name if source.path is None else str(_folder(source))
    config = _config(place, source, trust_remote_code)
    tokenizer = load_tokenizer(str(target), trust_remote_code=trust_remote_code)
    # A configuration may ask for more than the files hold: it is built before they are compared.
    empty = _empty(config, source, trust_remote_code)
    num = sum(parameter.numel() for parameter in empty.parameters())
    if source.path is not None:
        check_safetensors(Path(place))
        num = max(num, num_weights_in(Path(place)))
    arguments: dict[str, Any] = {}
    if quantization is None:
        refuse_too_large(num, source.name, dtype, device)
    else:
        _refuse_quantized_before(config, source.name)
        arguments = quantization.arguments(device)
        needed = quantization.bytes_of(empty, dtype)
        refuse_too_many_bytes(needed, source.name, quantization.load_in, device)
    try:
        both: Any = AutoModelForCausalLM.from_pretrained(
            place,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            key_mapping=wrapper_names(Path(place)) if source.path is not None else None,
            **arguments,
        )
    except Exception as error:  # wrong values fail anywhere in a model's own code
        raise _refusal(source, error) from error
    model, report = both
    refuse_misfits(model, report, source.name)
    if quantization is not None:
        quantization.finish(model, source.name)
        empty_cache()  # of the whole weights, layer by layer
    return _finish(model, tokenizer, source.name, None, device)


def count_parameters(target: str, *, trust_remote_code: bool = False) -> int | None:
    """How many parameters the model has, by its configuration alone; None of an adapter.

    Nothing is allocated. Raises UserError as ``load_model`` for what its configuration tells.
    """
    source = find_source(str(target))
    if source.path is None:
        source = _adapter_of_hub(source)
    if source.is_adapter:
        return None
    place = source.name if source.path is None else str(_folder(source))
    model = _empty(_config(place, source, trust_remote_code), source, trust_remote_code)
    return sum(parameter.numel() for parameter in model.parameters())


def _empty(config: Any, source: Source, trust_remote_code: bool) -> Any:
    """The model without its weights, which takes no memory."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # wrong values fail anywhere in a model's own code
        raise _refusal(source, error) from error


def _refuse_quantized_before(config: Any, name: str) -> None:
    if getattr(config, "quantization_config", None):
        raise UserError(
            f"Model {name} lies there quantized already: give the model that it was made from, or "
            "leave model.load_in out."
        )


def load_tokenizer(target: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of whatever ``load_model`` can load, with a padding token."""
    source = find_source(str(target))
    if source.path is None:
        place = source.name
    elif source.is_gguf:
        place = str(converted_gguf(source.path))
    else:
        folder = tokenizer_folder(source)
        if folder is None and source.is_adapter:
            return load_tokenizer(adapter_base(source), trust_remote_code=trust_remote_code)
        if folder is None:
            raise UserError(
                f"Model {source.name} has no tokenizer: copy the base model's tokenizer files "
                "(tokenizer.json, tokenizer_config.json) there."
            )
        place = str(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception as error:  # the readers of the many formats share no exception
        raise _refusal(source, error, "tokenizer of ") from error
    if tokenizer.pad_token_id is None:
        # Embeddings are never resized. Masks say what is padding, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def from_scratch(
    config: str | Path | Mapping[str, Any],
    tokenizer: Any,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    norm: str = "",
    norm_position: str = "",
) -> LoadedModel:
    """A model with random weights, drawn from ``seed``; global random numbers stay as they are.

    ``config`` is a config.json, a folder with one, or its content: at least ``model_type``. The
    vocabulary is the tokenizer's unless given; the special tokens are always the tokenizer's.
    ``tokenizer`` is one, or whatever ``load_model`` can load. ``norm`` and ``norm_position`` are
    those of ``heldout.lm.norms``.
    """
    if isinstance(config, Mapping):
        name, values = "the configuration", dict(config)
    else:
        path = Path(config).expanduser()
        path = path / "config.json" if path.is_dir() else path
        name, values = str(path), read_json(path)
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(str(tokenizer))
    model_type = values.pop("model_type", None)
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(
            f"{name}: model_type must be a causal model of transformers, such as llama, "
            f"got {json.dumps(model_type)}."
        )
    values.setdefault("vocab_size", len(tokenizer))
    for token in ("bos", "eos", "pad"):
        values[f"{token}_token_id"] = getattr(tokenizer, f"{token}_token_id")
    for key in ("architectures", "torch_dtype", "dtype", "quantization_config"):
        values.pop(key, None)
    try:
        built = with_norms(AutoConfig.for_model(model_type, **values), norm, norm_position)
        _check_causal(built, name)
        _check_layers(built, name)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(built)
        num = sum(parameter.numel() for parameter in empty.parameters())
        refuse_too_large(num, f"of {name}", dtype, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(built, dtype=dtype)
    except UserError:
        raise
    except Exception as error:  # wrong sizes fail anywhere in a model's own code
        raise UserError(f"{name}: no {model_type} model can be built from it: {error}") from error
    return _finish(model.eval(), tokenizer, f"{built.model_type} from scratch", None, device)


def _load_adapter(
    source: Source,
    device: str | torch.device,
    dtype: torch.dtype,
    trust_remote_code: bool,
    merge_adapter: bool,
    quantization: Quantization | None,
) -> LoadedModel:
    assert source.path is not None
    base_target = adapter_base(source)
    quantization = quantization or Quantization.noted_in(source.path)
    try:
        base = load_model(
            base_target,
            device="cpu" if quantization is None else device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            quantization=quantization,
        )
    except UserError as error:
        raise UserError(f"Adapter {source.name}: its base cannot be loaded. {error}") from error
    check_safetensors(source.path)
    tokenizer = base.tokenizer
    if tokenizer_folder(source) is not None:
        tokenizer = load_tokenizer(str(source.path), trust_remote_code=trust_remote_code)
    model = with_adapter(base.model, source.path, source.name, base_target)
    if quantization is not None:
        return _finish(model, tokenizer, source.name, base_target, device)
    if merge_adapter and hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
    return _finish(model.to(dtype), tokenizer, source.name, base_target, device)


def _adapter_of_hub(source: Source) -> Source:
    """A Hub id that holds an adapter becomes the folder of its download."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        hf_hub_download(source.name, "adapter_config.json")
        folder = snapshot_download(
            source.name, allow_patterns=["*.json", "*.safetensors", "*.model"]
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return source  # not an adapter, or not reachable: loading it tells
    return Source(source.name, Path(folder), is_adapter=True)


def _folder(source: Source) -> Path:
    assert source.path is not None
    return converted_gguf(source.path) if source.is_gguf else source.path


def _config(place: str, source: Source, trust_remote_code: bool) -> Any:
    if source.path is not None:
        values = read_json(Path(place) / "config.json")
        known = values.get("model_type") in CONFIG_MAPPING_NAMES
        if "auto_map" in values and not known and not trust_remote_code:
            raise UserError(
                f"Model {source.name} brings Python code of its own, which would run here: read "
                "it, then allow it with --set model.trust_remote_code=true."
            )
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception as error:  # each model checks its values in its own way
        raise _refusal(source, error) from error
    _check_causal(config, f"Model {source.name}")
    _check_layers(config, f"Model {source.name}")
    return config


_MOST_LAYERS = 10_000  # a typing error: to build so many takes minutes, whatever their size


def _check_layers(config: Any, name: str) -> None:
    num_layers = getattr(config.get_text_config(), "num_hidden_layers", 1)
    if not isinstance(num_layers, int) or not 1 <= num_layers <= _MOST_LAYERS:
        raise UserError(
            f"{name}: num_hidden_layers in config.json must be between 1 and {_MOST_LAYERS}, got "
            f"{num_layers!r}."
        )


def _check_causal(config: Any, name: str) -> None:
    if config.is_encoder_decoder:
        raise UserError(f"{name} is an encoder-decoder; only causal language models are trained.")
    kind = config.model_type
    has_own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    is_encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_decoder
    if is_encoder or not (kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or has_own_code):
        raise UserError(f"{name} ({kind}) is not a causal language model; only those are trained.")


def _finish(
    model: Any, tokenizer: Any, name: str, adapter_of: str | None, device: str | torch.device
) -> LoadedModel:
    num_embeddings = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > num_embeddings:
        raise UserError(
            f"Model {name}: the tokenizer has {len(tokenizer)} tokens but the model only "
            f"{num_embeddings}: it belongs to another model. Put the model's own beside it."
        )
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    parameters = num_parameters(model)
    search_as_usual()
    return LoadedModel(model.to(device).eval(), tokenizer, name, adapter_of, parameters)


def _refusal(source: Source, error: Exception, part: str = "") -> UserError:
    """One line for what transformers tells in many."""
    what = one_line(error)
    if source.path is not None:
        return UserError(f"The {part}model {source.name} cannot be loaded: {what.rstrip('.')}.")
    if "trust_remote_code" in what:
        return UserError(
            f"Model {source.name} brings Python code of its own, which would run here: read it, "
            "then allow it with --set model.trust_remote_code=true."
        )
    if "safetensors" in what:
        return UserError(f"Model {source.name} has no safetensors weights on the Hub: convert it.")
    first = what.split(". ")[0][:160]
    return UserError(
        f"Model {source.name} is no folder here, and the Hub does not give it: check the name and "
        f"the connection, or log in with `hf auth login` if it is gated. ({first})"
    )
