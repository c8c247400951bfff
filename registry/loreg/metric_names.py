"""Names of metrics: the usual ones with their direction and unit, and names that look like a slip of another.

Come here to make loreg know one more metric.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

from loreg.value import Value


class UsualMetric(Value, frozen=True):
    """What is known of a metric by its name; an empty ``unit`` says that people report it in several."""

    higher_is_better: bool
    unit: str = ""


_HIGHER, _LOWER = UsualMetric(True), UsualMetric(False)
_SHARE, _ERROR_RATE = UsualMetric(True, "share"), UsualMetric(False, "share")
#: By a word of the name, or several in a row, so that ``eval_loss`` and ``rouge-l`` are known too.
USUAL: dict[str, UsualMetric] = {
    **dict.fromkeys(
        ("accuracy", "acc", "f1", "precision", "recall", "auc", "auroc", "em", "map", "ndcg", "mrr"), _SHARE
    ),
    **dict.fromkeys(("bleu", "sacrebleu", "chrf", "rouge", "rouge1", "rouge2", "rougel", "rougelsum"), _HIGHER),
    **dict.fromkeys(("meteor", "bertscore", "comet", "mcc", "pearson", "spearman", "r2", "pass", "winrate"), _HIGHER),
    **dict.fromkeys(("wer", "cer", "ter", "mer", "eer", "error"), _ERROR_RATE),
    **dict.fromkeys(("loss", "nll"), _LOWER),
    **dict.fromkeys(("bpb", "bpc", "bits_per_byte", "bits_per_character"), UsualMetric(False, "bits")),
    **dict.fromkeys(("perplexity", "ppl", "mae", "mse", "rmse", "mape", "brier", "ece", "fid", "latency"), _LOWER),
}
_MAX_WORDS = max(key.count("_") for key in USUAL) + 1
_MIN_LETTERS = 3  # of a name that may be a slip
_MIN_RATIO = 0.8  # of a slip to the name that was meant (difflib)


def usual_metric(name: str) -> UsualMetric | None:
    """Return what is known of a metric of that name; None if nothing is.

    >>> usual_metric("eval_loss").higher_is_better, usual_metric("exact-wer").unit, usual_metric("score")
    (False, 'share', None)
    """
    words = re.split(r"[_\W]+", name.lower())
    phrases = (words[i:j] for i in range(len(words)) for j in range(i + 1, min(i + _MAX_WORDS, len(words)) + 1))
    kinds = [USUAL[key] for key in map("_".join, phrases) if key in USUAL]
    return next((kind for kind in kinds if not kind.higher_is_better), kinds[0] if kinds else None)


def find_slip(name: str, names: Collection[str]) -> str | None:
    """Return the one of ``names`` that ``name`` looks like a slip of; None if it is among them, or like none.

    Names that differ in a number are two: ``rouge1`` is no slip of ``rouge2``.

    >>> find_slip("acuracy", ["accuracy", "f1"]), find_slip("Accuracy", ["accuracy"]), find_slip("rouge1", ["rouge2"])
    ('accuracy', 'accuracy', None)
    """
    if name in names or len(name) < _MIN_LETTERS:
        return None
    for other in sorted(names):
        if _letters(other) == _letters(name):
            return other
    alike = [other for other in sorted(names) if _digits(other) == _digits(name) and len(other) >= _MIN_LETTERS]
    close = difflib.get_close_matches(name.casefold(), [other.casefold() for other in alike], 1, _MIN_RATIO)
    return next((other for other in alike if other.casefold() == close[0]), None) if close else None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _digits(name: str) -> Iterable[str]:
    return re.findall(r"\d+", name)
