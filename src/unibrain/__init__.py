"""UniBrain: from an fMRI scan to the picture that was seen and a sentence that describes it.

Ten lines from a scan to scores::

    import unibrain

    subject = unibrain.load_subject("my-run/subject.npz")
    stimuli = unibrain.read_nsd_stimuli("my-run/nsd", subject.stimulus_ids)
    backbone = unibrain.load_backbone("small")
    train, test = subject.train, subject.test
    latents = unibrain.extract(backbone, stimuli, train.stimulus_ids)
    decoder = unibrain.BrainDecoder().fit(train.betas, latents)
    predicted = decoder.predict(test.betas, test.stimulus_ids)
    decoded = unibrain.reconstruct(backbone, predicted)
    scores = unibrain.evaluate(decoded, stimuli, backbone, simulated=subject.simulated)
    print(unibrain.format_table(scores))

A scan of a finished run is decoded in one line, ``unibrain.decode("my-run", scan)``; figures are in `unibrain.plot`.

Names are imported when they are first used, so that ``import unibrain`` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_EXPORTS = {
    "unibrain.backbone": "BACKBONES Backbone SamplingSettings load_backbone",
    "unibrain.demo": "SimulationSettings simulate_nsd",
    "unibrain.errors": "InputError",
    "unibrain.evaluation": "METRICS Metric Score Scores evaluate format_table load_scores save_scores",
    "unibrain.latents": "LATENTS Latents StoredLatents extract load_latents open_latents save_latents",
    "unibrain.pipeline": "RunFolder Settings decode demo_settings read_settings run_all run_one write_settings",
    "unibrain.reconstruction": "Decoded load_decoded reconstruct save_decoded",
    "unibrain.regression": "BrainDecoder",
    "unibrain.report": "ReportContent write_report",
    "unibrain.scans": "PrepareSettings Subject load_subject read_nsd save_subject",
    "unibrain.stimuli": "Stimuli read_custom_stimuli read_nsd_stimuli",
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = [
    "BACKBONES",
    "LATENTS",
    "METRICS",
    "Backbone",
    "BrainDecoder",
    "Decoded",
    "InputError",
    "Latents",
    "Metric",
    "PrepareSettings",
    "ReportContent",
    "RunFolder",
    "SamplingSettings",
    "Score",
    "Scores",
    "Settings",
    "SimulationSettings",
    "Stimuli",
    "StoredLatents",
    "Subject",
    "__version__",
    "decode",
    "demo_settings",
    "evaluate",
    "extract",
    "format_table",
    "load_backbone",
    "load_decoded",
    "load_latents",
    "load_scores",
    "load_subject",
    "open_latents",
    "read_custom_stimuli",
    "read_nsd",
    "read_nsd_stimuli",
    "read_settings",
    "reconstruct",
    "run_all",
    "run_one",
    "save_decoded",
    "save_latents",
    "save_scores",
    "save_subject",
    "simulate_nsd",
    "write_report",
    "write_settings",
]

if TYPE_CHECKING:
    from unibrain.backbone import BACKBONES, Backbone, SamplingSettings, load_backbone
    from unibrain.demo import SimulationSettings, simulate_nsd
    from unibrain.errors import InputError
    from unibrain.evaluation import METRICS, Metric, Score, Scores, evaluate, format_table, load_scores, save_scores
    from unibrain.latents import LATENTS, Latents, StoredLatents, extract, load_latents, open_latents, save_latents
    from unibrain.pipeline import (
        RunFolder,
        Settings,
        decode,
        demo_settings,
        read_settings,
        run_all,
        run_one,
        write_settings,
    )
    from unibrain.reconstruction import Decoded, load_decoded, reconstruct, save_decoded
    from unibrain.regression import BrainDecoder
    from unibrain.report import ReportContent, write_report
    from unibrain.scans import PrepareSettings, Subject, load_subject, read_nsd, save_subject
    from unibrain.stimuli import Stimuli, read_custom_stimuli, read_nsd_stimuli


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("unibrain.plot")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
