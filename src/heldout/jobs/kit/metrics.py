"""Task metrics for generated answers: exact match, ROUGE-L, or a function of the user's."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.segments import folded, words

Metric = Callable[[str, str], float]  # (prediction, reference) -> score, higher is better


def load_metric(name: str) -> Metric:
    """``exact_match``, ``rouge_l``, or ``path/to/file.py:function``; raises UserError."""
    if name == "exact_match":
        return exact_match
    if name == "rouge_l":
        return _rouge_l()
    path, separator, function = name.rpartition(":")
    if not separator or not path.endswith(".py"):
        raise UserError(
            f"eval.metric must be exact_match, rouge_l or path/to/file.py:function, got {name!r}."
        )
    if not Path(path).is_file():
        raise UserError(f"eval.metric: {path} does not exist.")
    spec = importlib.util.spec_from_file_location("heldout_user_metric", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may fail in any way
        raise UserError(f"eval.metric: {path} does not load: {error!r}.") from error
    own = getattr(module, function, None)
    if not callable(own):
        raise UserError(f"eval.metric: {path} defines no function {function!r}.")

    def metric(prediction: str, reference: str) -> float:
        try:
            return float(own(prediction, reference))
        except Exception as error:
            raise UserError(
                f"eval.metric: {name} failed on a prediction of {len(prediction)} characters: "
                f"{error!r}. It must return a number for (prediction, reference)."
            ) from error

    metric("", "")
    return metric


def exact_match(prediction: str, reference: str) -> float:
    """1 where both are equal after folding case, width and white space, else 0.

    Beside scripts that put no spaces between words a space does not count.
    """
    return float(folded(prediction) == folded(reference))


def _rouge_l() -> Metric:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise UserError(
            "eval.metric = rouge_l needs the package rouge-score: pip install 'heldout[rouge]'."
        ) from None
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())

    def rouge_l(prediction: str, reference: str) -> float:
        """F-measure of the longest common subsequence of words (Lin 2004)."""
        return float(scorer.score(reference, prediction)["rougeL"].fmeasure)

    return rouge_l


class _Words:
    """Words, and single letters where a script puts no spaces between words."""

    def tokenize(self, text: str) -> list[str]:
        return words(folded(text))
