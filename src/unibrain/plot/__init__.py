"""Figures of results, as matplotlib functions: each draws where it is told to, or on a new figure, and returns axes.

In a notebook a figure shows itself when the cell ends; in a script, call ``matplotlib.pyplot.show()``, or save it:
``unibrain.plot.scores(scores).figure.savefig("scores.svg")``.
"""

from unibrain.plot.alphas import penalties
from unibrain.plot.results import accuracy, neighbours, pictures, scores
from unibrain.plot.volumes import slices

__all__ = ["accuracy", "neighbours", "penalties", "pictures", "scores", "slices"]
