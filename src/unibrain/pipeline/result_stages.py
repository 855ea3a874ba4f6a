"""The stages that show what a run is worth: `evaluate` and `report`."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.decoding_stages import sampling
from unibrain.pipeline.options import as_plain
from unibrain.pipeline.settings import SECTIONS, Settings
from unibrain.pipeline.sources import read_stimuli, stimulus_files, training_view
from unibrain.workspace.provenance import peak_memory_mb
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stage import Stage, StageResult, read_record, run_stage

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion

__all__ = ["evaluate", "report"]


_SHUFFLED = (
    "This run is a control: its training scans were shuffled against their images, so nothing can be decoded from them."
)


def _records(run: RunFolder, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    found = {name: read_record(run, name) for name in names}
    return {name: record["provenance"] for name, record in found.items() if record is not None}


def _settings(settings: Settings, network: "VersatileDiffusion") -> dict[str, dict[str, Any]]:
    """Settings of the run, with what the backbone chose for itself."""
    plain = {name: as_plain(getattr(settings, name)) for name in SECTIONS if getattr(settings, name) is not None}
    plain["sampling of pictures"] = asdict(sampling(network.image_settings, settings, "pictures"))
    plain["sampling of captions"] = asdict(sampling(network.text_settings, settings, "captions"))
    return plain


def _seconds(run: RunFolder) -> dict[str, float]:
    return {name: float(about["seconds"]) for name, about in _records(run, tuple(SECTIONS)).items() if name != "report"}


def _versions(stages: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Versions of the last stage on record: those that made the pictures."""
    about = list(stages.values())[-1] if stages else {}
    ours: dict[str, str] = {name: about[name] for name in ("unibrain", "python", "platform") if name in about}
    return ours | dict(about.get("libraries", {}))


def evaluate(run: RunFolder, settings: Settings, backbone: BackboneSource | None = None) -> StageResult:
    """Score what was decoded, beside shuffled controls: artefact ``scores.json``.

    Its seconds and peak memory are those of all stages up to the end of this one.

    Parameters
    ----------
    run : RunFolder
    settings : Settings
    backbone : BackboneSource, optional
        By default that of the settings, on the best device.

    Returns
    -------
    StageResult

    Raises
    ------
    InputError
        If nothing is decoded.
    """
    section, backbone = settings.evaluate, backbone or BackboneSource()
    inputs, outside = stimulus_files(run, settings)
    earlier = tuple(name for name in SECTIONS if name not in ("evaluate", "report", *(["simulate"] * (not inputs))))

    def work() -> None:
        from unibrain import evaluation
        from unibrain.latents import load_latents
        from unibrain.reconstruction import load_decoded
        from unibrain.regression import BrainDecoder, region_accuracy
        from unibrain.scans import load_subject

        began = time.monotonic()
        subject = load_subject(run.artefact("subject"))
        decoder = BrainDecoder.load(run.artefact("decoder") / "decoder.safetensors")
        latents = load_latents(run.artefact("latents"))
        network = backbone.load(settings.extract.backbone)
        scores = evaluation.evaluate(
            load_decoded(run.artefact("decoded")),
            read_stimuli(run, settings, subject),
            network,
            simulated=subject.simulated,
            seed=section.seed,
            latent_accuracy=region_accuracy(training_view(subject, settings), latents, decoder.alpha_),
        )
        stages = _records(run, earlier)
        seconds = sum(float(about["seconds"]) for about in stages.values()) + time.monotonic() - began
        peak = max([float(about["peak_memory_mb"]) for about in stages.values()] + [peak_memory_mb()])
        evaluation.save_scores(
            run.artefact("scores"),
            scores,
            seconds=round(seconds, 1),
            peak_memory_gb=round(peak / 1000, 3),
            provenance={
                "settings": _settings(settings, network),
                "backbone": {"name": network.name, "fingerprint": network.fingerprint},
                "alpha": dict(decoder.alpha_),
                "stages": stages,
            },
        )

    names = ("subject", "latents", "decoder", "decoded", *inputs)
    facts = {"backbone": backbone.fingerprint(settings.extract.backbone)}
    return run_stage(run, Stage("evaluate", as_plain(section), names, ("scores",), work, outside, facts))


def report(run: RunFolder, settings: Settings) -> StageResult:
    """Write the page that shows the run: artefact ``report.html``.

    Parameters
    ----------
    run : RunFolder
    settings : Settings

    Returns
    -------
    StageResult

    Raises
    ------
    InputError
        If there are no scores.
    """
    section = settings.report
    inputs, outside = stimulus_files(run, settings)

    def work() -> None:
        from unibrain import report as page
        from unibrain.evaluation.store import load_scores
        from unibrain.reconstruction import load_decoded
        from unibrain.scans import load_subject

        subject, decoded = load_subject(run.artefact("subject")), load_decoded(run.artefact("decoded"))
        stimuli = read_stimuli(run, settings, subject)
        about = json.loads(run.artefact("scores").read_text(encoding="utf-8"))
        backbone, stages = about["provenance"]["backbone"], about["provenance"]["stages"]
        weights = {f"weights of the backbone {backbone['name']}": backbone["fingerprint"][:12]}
        content = page.ReportContent(
            title=section.title,
            subject=subject.name,
            simulated=subject.simulated,
            seen=stimuli.pictures(decoded.stimulus_ids),
            decoded=decoded,
            captions=tuple(stimuli.captions(decoded.stimulus_ids)),
            scores=load_scores(run.artefact("scores")),
            settings=about["provenance"]["settings"],
            versions=_versions(stages) | weights,
            seconds=_seconds(run),
            peak_memory_gb=about["peak_memory_gb"],
            limits=(_SHUFFLED,) if settings.fit.shuffle_scans else (),
        )
        page.write_report(run.artefact("report"), content)

    names = ("scores", "decoded", "subject", *inputs)
    return run_stage(run, Stage("report", as_plain(section), names, ("report",), work, outside))
