"""Keep the chatter of the libraries below away from the user; warnings of our own still show."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from huggingface_hub.utils import logging as hub_logging


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars, information lines or deprecation warnings of transformers and peft."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    parallel = os.environ.get("TOKENIZERS_PARALLELISM")
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    hub_level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            transformers.logging.enable_progress_bar()
        if parallel is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallel
