"""Experiments on a finished run: each is one function, one command, a table, a figure and a page."""

from unibrain.experiments.ablation import ablate
from unibrain.experiments.alignment import align
from unibrain.experiments.bench import Bench, open_bench
from unibrain.experiments.caption_sources import caption_sources
from unibrain.experiments.comparison import compare, group
from unibrain.experiments.findings import Cell, Column, Findings, Strip, as_text, write_findings
from unibrain.experiments.further import further
from unibrain.experiments.regions import regions
from unibrain.experiments.repeats import repeats
from unibrain.experiments.sweep import sweep
from unibrain.experiments.transfer import transfer

__all__ = [
    "Bench",
    "Cell",
    "Column",
    "Findings",
    "Strip",
    "ablate",
    "align",
    "as_text",
    "caption_sources",
    "compare",
    "further",
    "group",
    "open_bench",
    "regions",
    "repeats",
    "sweep",
    "transfer",
    "write_findings",
]
