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

Names are imported when they are first used, so that ``import unibrain`` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "BrainDecoder": "unibrain.regression",
    "Decoded": "unibrain.reconstruction",
    "InputError": "unibrain.errors",
    "Latents": "unibrain.latents",
    "ReportContent": "unibrain.report",
    "Scores": "unibrain.evaluation",
    "SimulationSettings": "unibrain.demo",
    "Stimuli": "unibrain.stimuli",
    "Subject": "unibrain.scans",
    "evaluate": "unibrain.evaluation",
    "extract": "unibrain.latents",
    "format_table": "unibrain.evaluation",
    "load_backbone": "unibrain.backbone",
    "load_decoded": "unibrain.reconstruction",
    "load_latents": "unibrain.latents",
    "load_scores": "unibrain.evaluation",
    "load_subject": "unibrain.scans",
    "read_nsd": "unibrain.scans",
    "read_nsd_stimuli": "unibrain.stimuli",
    "reconstruct": "unibrain.reconstruction",
    "save_decoded": "unibrain.reconstruction",
    "save_latents": "unibrain.latents",
    "save_scores": "unibrain.evaluation",
    "save_subject": "unibrain.scans",
    "simulate_nsd": "unibrain.demo",
    "write_report": "unibrain.report",
}

__all__ = [
    "BrainDecoder",
    "Decoded",
    "InputError",
    "Latents",
    "ReportContent",
    "Scores",
    "SimulationSettings",
    "Stimuli",
    "Subject",
    "__version__",
    "evaluate",
    "extract",
    "format_table",
    "load_backbone",
    "load_decoded",
    "load_latents",
    "load_scores",
    "load_subject",
    "read_nsd",
    "read_nsd_stimuli",
    "reconstruct",
    "save_decoded",
    "save_latents",
    "save_scores",
    "save_subject",
    "simulate_nsd",
    "write_report",
]

if TYPE_CHECKING:
    from unibrain.backbone import load_backbone
    from unibrain.errors import InputError
    from unibrain.evaluation import Scores, evaluate, format_table, load_scores, save_scores
    from unibrain.latents import Latents, extract, load_latents, save_latents
    from unibrain.reconstruction import Decoded, load_decoded, reconstruct, save_decoded
    from unibrain.regression import BrainDecoder
    from unibrain.report import ReportContent, write_report
    from unibrain.scans import Subject, load_subject, read_nsd, save_subject
    from unibrain.demo import SimulationSettings, simulate_nsd
    from unibrain.stimuli import Stimuli, read_nsd_stimuli


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
