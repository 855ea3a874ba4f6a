"""Scores of decoded pictures, captions and latents, each beside its control; `METRICS` is the table of them."""

from unibrain.evaluation.evaluate import evaluate
from unibrain.evaluation.metrics import METRICS, Comparison, Measure, Metric
from unibrain.evaluation.scores import Score, Scores, format_table, load_scores, save_scores

__all__ = [
    "METRICS",
    "Comparison",
    "Measure",
    "Metric",
    "Score",
    "Scores",
    "evaluate",
    "format_table",
    "load_scores",
    "save_scores",
]
