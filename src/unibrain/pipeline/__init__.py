"""The stages of a run, each a function over a run folder: what the command line calls, and what Python may call."""

from unibrain.pipeline.auditing import audit, audit_tree
from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.decoding_stages import extract, fit, reconstruct
from unibrain.pipeline.demo import demo_settings
from unibrain.pipeline.result_stages import evaluate, report
from unibrain.pipeline.scan_stages import prepare, simulate
from unibrain.pipeline.settings import (
    SECTIONS,
    EvaluateSection,
    ExtractSection,
    FitSection,
    OwnSection,
    PrepareSection,
    ReconstructSection,
    ReportSection,
    Settings,
    SimulateSection,
)
from unibrain.pipeline.settings_file import read_settings, settings_text, write_settings
from unibrain.pipeline.stages import STAGES, kept_settings, run_all, run_one
from unibrain.workspace.run_folder import RunFolder

__all__ = [
    "SECTIONS",
    "STAGES",
    "BackboneSource",
    "EvaluateSection",
    "ExtractSection",
    "FitSection",
    "OwnSection",
    "PrepareSection",
    "ReconstructSection",
    "ReportSection",
    "RunFolder",
    "Settings",
    "SimulateSection",
    "audit",
    "audit_tree",
    "demo_settings",
    "evaluate",
    "extract",
    "fit",
    "kept_settings",
    "prepare",
    "read_settings",
    "reconstruct",
    "report",
    "run_all",
    "run_one",
    "settings_text",
    "simulate",
    "write_settings",
]
