"""Scores of decoded pictures and captions, each with its control."""

from unibrain.evaluation.evaluate import evaluate
from unibrain.evaluation.scores import Score, Scores
from unibrain.evaluation.store import load_scores, save_scores
from unibrain.evaluation.table import format_table

__all__ = ["Score", "Scores", "evaluate", "format_table", "load_scores", "save_scores"]
