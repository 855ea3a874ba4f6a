"""The stages that show what a run is worth: `evaluate` and `report`."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unibrain.pipeline.backbone_source import SCORING, BackboneSource
from unibrain.pipeline.caption_side import NO_CAPTIONS, TEXT_LATENTS, used_latents, with_captions
from unibrain.pipeline.decoding_stages import sampling
from unibrain.pipeline.options import as_plain
from unibrain.pipeline.settings import SECTIONS, Settings
from unibrain.pipeline.sources import caption_source, read_stimuli, stimulus_files, training_view
from unibrain.workspace.provenance import peak_memory_mb
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stages import Stage, StageResult, read_record, run_stage

if TYPE_CHECKING:
    from unibrain.backbone import VersatileDiffusion
    from unibrain.scans.subject import Subject
    from unibrain.stimuli.stimuli import Stimuli

__all__ = ["evaluate", "report"]


_SHUFFLED = (
    "This run is a control: its training scans were shuffled against their images, so nothing can be decoded from them."
)


def _records(run: RunFolder, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    found = {name: read_record(run, name) for name in names}
    return {name: record["provenance"] for name, record in found.items() if record is not None}


def _settings(settings: Settings, network: "VersatileDiffusion", captions: bool) -> dict[str, dict[str, Any]]:
    """Settings of the run, with what the backbone chose for itself."""
    plain = {name: as_plain(getattr(settings, name)) for name in SECTIONS if getattr(settings, name) is not None}
    plain["sampling of pictures"] = asdict(sampling(network.sampling("picture"), settings, "pictures", captions))
    if captions:
        plain["sampling of captions"] = asdict(sampling(network.sampling("caption"), settings, "captions"))
    return plain


def _seconds(run: RunFolder) -> dict[str, float]:
    return {name: float(about["seconds"]) for name, about in _records(run, tuple(SECTIONS)).items() if name != "report"}


def _versions(stages: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Versions of the last stage on record: those that made the pictures."""
    about = list(stages.values())[-1] if stages else {}
    ours: dict[str, str] = {name: about[name] for name in ("unibrain", "python", "platform") if name in about}
    return ours | dict(about.get("libraries", {}))


def _audit(run: RunFolder, subject: "Subject", stimuli: "Stimuli") -> dict[str, Any]:
    """The audit of this very subject for the page, with the pictures that it shows; nothing if there is none."""
    if not run.artefact("audit").exists():
        return {}
    from unibrain.audit import load_audit
    from unibrain.report import shown_pairs
    from unibrain.scans import split_hash

    audit = load_audit(run.artefact("audit"))
    if (audit.subject, audit.split) != (subject.name, split_hash(subject)):
        return {}
    ids = sorted({identity for pair in shown_pairs(audit) for identity in (pair.test_id, pair.train_id)})
    pictures = dict(zip(ids, stimuli.pictures(ids), strict=True)) if ids else {}
    return {"audit": audit, "audit_pictures": pictures}


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
    skipped = ("evaluate", "report", *["simulate"] * (settings.simulate is None))
    earlier = tuple(name for name in SECTIONS if name not in skipped)

    def work() -> None:
        from unibrain import evaluation
        from unibrain.latents import load_latents, open_latents
        from unibrain.reconstruction import load_decoded
        from unibrain.regression import BrainDecoder, region_accuracy
        from unibrain.scans import load_subject, split_hash

        began = time.monotonic()
        subject = load_subject(run.artefact("subject"))
        decoder = BrainDecoder.load(run.artefact("decoder") / "decoder.safetensors")
        latents, predicted = open_latents(run.artefact("latents")), load_latents(run.artefact("predicted"))
        network = backbone.load(settings.extract.backbone, SCORING)
        captions = with_captions(run)
        accuracy = region_accuracy(training_view(subject, settings), latents, decoder.alpha_, settings.fit.memory)
        scores = evaluation.evaluate(
            load_decoded(run.artefact("decoded")),
            read_stimuli(run, settings, subject),
            network,
            simulated=subject.simulated,
            seed=section.seed,
            predicted=predicted,
            latents=latents.select(predicted.stimulus_ids).read(),
            region_accuracy=tuple(entry for entry in accuracy if captions or entry[0] not in TEXT_LATENTS),
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
                "settings": _settings(settings, network, captions),
                "backbone": {"name": network.name, "fingerprint": network.fingerprint},
                "split": {"sha256": split_hash(subject), "preparation": dict(subject.preparation)},
                "alpha": used_latents(decoder.alpha_, captions),
                "stages": stages,
            },
        )

    names = ("subject", "latents", "decoder", "predicted", "decoded", *inputs)
    facts = backbone.facts(settings.extract.backbone)
    chosen = as_plain(section) | caption_source(settings)
    return run_stage(run, Stage("evaluate", chosen, names, ("scores",), work, outside, facts))


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
        from unibrain.evaluation.scores import load_scores
        from unibrain.reconstruction import load_decoded
        from unibrain.regression.rescale import TEST_WARNING
        from unibrain.regression.store import load_choices
        from unibrain.scans import load_subject

        subject, decoded = load_subject(run.artefact("subject")), load_decoded(run.artefact("decoded"))
        stimuli = read_stimuli(run, settings, subject)
        about = json.loads(run.artefact("scores").read_text(encoding="utf-8"))
        backbone, stages = about["provenance"]["backbone"], about["provenance"]["stages"]
        weights = {f"weights of the backbone {backbone['name']}": backbone["fingerprint"][:12]}
        weights["split into training and test images"] = about["provenance"]["split"]["sha256"][:12]
        alpha_choices, band_choice = load_choices(run.artefact("decoder") / "decoder.safetensors")
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
            limits=(
                *[NO_CAPTIONS] * (not stimuli.has_captions),
                *[_SHUFFLED] * settings.fit.shuffle_scans,
                *[TEST_WARNING] * (settings.fit.rescale == "test"),
            ),
            alpha_choices=used_latents(alpha_choices, stimuli.has_captions),
            bands=band_choice,
            **_audit(run, subject, stimuli),
        )
        page.write_report(run.artefact("report"), content)

    # The audit is nobody's duty: the page shows it if there is one.
    names = ("scores", "decoded", "decoder", "subject", *["audit"] * run.artefact("audit").exists(), *inputs)
    chosen = as_plain(section) | caption_source(settings)
    return run_stage(run, Stage("report", chosen, names, ("report",), work, outside))
