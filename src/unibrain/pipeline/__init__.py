"""The stages of a run over its folder: what the command line calls, and what Python may call."""

from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.run import decode, decoded_items, kept_settings, run_all, run_one, write_weights
from unibrain.pipeline.settings import (
    SECTIONS,
    ControlsSection,
    CustomSection,
    EvaluateSection,
    ExtractSection,
    FitSection,
    PrepareSection,
    ReconstructSection,
    ReportSection,
    Section,
    Settings,
    SimulateSection,
    demo_settings,
    settings_problem,
)
from unibrain.pipeline.settings_file import read_settings, settings_text, write_settings
from unibrain.pipeline.stages import STAGES, declare
from unibrain.workspace.run_folder import RunFolder

__all__ = [
    "SECTIONS",
    "STAGES",
    "BackboneSource",
    "ControlsSection",
    "CustomSection",
    "EvaluateSection",
    "ExtractSection",
    "FitSection",
    "PrepareSection",
    "ReconstructSection",
    "ReportSection",
    "RunFolder",
    "Section",
    "Settings",
    "SimulateSection",
    "declare",
    "decode",
    "decoded_items",
    "demo_settings",
    "kept_settings",
    "read_settings",
    "run_all",
    "run_one",
    "settings_problem",
    "settings_text",
    "write_settings",
    "write_weights",
]
