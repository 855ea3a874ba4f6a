"""One self-contained page per run: what was seen beside what was decoded, and the scores."""

from unibrain.report.content import ReportContent
from unibrain.report.page import write_report
from unibrain.report.sections import shown_pairs
from unibrain.scans.subject import Region, regions_of

__all__ = ["Region", "ReportContent", "regions_of", "shown_pairs", "write_report"]
