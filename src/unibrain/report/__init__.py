"""One self-contained page per run: what was seen beside what was decoded, and the scores."""

from unibrain.report.audit_view import shown_pairs
from unibrain.report.content import ReportContent
from unibrain.report.page import write_report

__all__ = ["ReportContent", "shown_pairs", "write_report"]
