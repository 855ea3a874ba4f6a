"""The stages that lead from a prepared subject to decoded pictures and captions."""

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from unibrain.errors import InputError
from unibrain.pipeline.backbone_source import DECODING, EXTRACTING, BackboneSource
from unibrain.pipeline.caption_side import pictures_alone, used_latents, with_captions
from unibrain.pipeline.options import as_plain
from unibrain.pipeline.settings import Settings
from unibrain.pipeline.sources import read_stimuli, stimulus_files, training_view
from unibrain.workspace.files import atomic_folder, write_bytes
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stages import Stage, StageResult, run_stage

if TYPE_CHECKING:
    from unibrain.backbone.sampler import SamplingSettings

__all__ = ["extract", "fit", "reconstruct", "sampling"]


def extract(run: RunFolder, settings: Settings, backbone: BackboneSource | None = None) -> StageResult:
    """Encode the subject's pictures and captions: artefact ``latents``.

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
        If the subject is not prepared, or a picture or caption is missing.
    """
    section, backbone = settings.extract, backbone or BackboneSource()
    inputs, outside = stimulus_files(run, settings)

    def work() -> None:
        import numpy as np

        from unibrain import latents
        from unibrain.scans import load_subject

        subject = load_subject(run.artefact("subject"))
        stimuli = read_stimuli(run, settings, subject)
        latents.extract_to(
            run.artefact("latents"),
            backbone.load(section.backbone, _needed(EXTRACTING, stimuli.has_captions)),
            stimuli,
            np.unique(subject.stimulus_ids),  # of single trials, each image once
            section.batch_size,
            caption=section.caption,
            caption_context=section.caption_context,
            caption_seed=section.caption_seed,
            storage=section.storage,
            precision=section.precision,
            unfinished=run.cache("extract"),
        )

    facts = backbone.facts(section.backbone)
    chosen = as_plain(section, only_result=True)
    return run_stage(run, Stage("extract", chosen, ("subject", *inputs), ("latents",), work, outside, facts))


def fit(run: RunFolder, settings: Settings) -> StageResult:
    """Fit the four ridge regressions on the training images: artefact ``decoder``.

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
        If the latents are not extracted, or there are too few training images.
    """
    section = settings.fit

    def work() -> None:
        from unibrain.latents import open_latents
        from unibrain.regression import BrainDecoder
        from unibrain.regression.alpha_plot import alpha_figure
        from unibrain.scans import load_subject

        train = training_view(load_subject(run.artefact("subject")), settings).train
        targets = open_latents(run.artefact("latents")).select(train.stimulus_ids)
        decoder = BrainDecoder(
            section.alpha,
            folds=section.folds,
            rescale=section.rescale,
            seed=section.seed,
            verbose=True,
            alpha_per=section.alpha_per,
            bands=section.band_regions(),
            memory=section.memory,
            device=section.device,
        )
        decoder.fit(train.betas, targets, train.stimulus_ids, train.regions)
        with atomic_folder(run.artefact("decoder")) as folder:
            decoder.save(folder / "decoder.safetensors")
            choices = used_latents(decoder.alpha_choice_, with_captions(run))
            if choices:
                write_bytes(folder / "alpha.svg", alpha_figure(choices))

    chosen = as_plain(section, only_result=True)
    return run_stage(run, Stage("fit", chosen, ("subject", "latents"), ("decoder",), work))


def _needed(parts: tuple[str, ...], captions: bool) -> tuple[str, ...]:
    return tuple(part for part in parts if captions or part != "optimus")


def sampling(
    default: "SamplingSettings", settings: Settings, kind: Literal["pictures", "captions"], captions: bool = True
) -> "SamplingSettings":
    """How one flow samples in this run.

    Parameters
    ----------
    default : SamplingSettings
        The backbone's own, for what the settings leave out.
    settings : Settings
    kind : {"pictures", "captions"}
    captions : bool
        False if the run has none: then pictures are guided by the image alone.

    Returns
    -------
    SamplingSettings

    Raises
    ------
    InputError
        If there are no captions and the settings ask for some weight of theirs.
    """
    section = settings.reconstruct
    chosen: dict[str, Any] = {
        "image_weight": getattr(section, f"image_weight_{kind}"),
        "guidance_scale": section.guidance_scale,
        "strength": section.strength,
        "steps": section.steps,
        "eta": section.eta,
    }
    found = replace(default, **{name: value for name, value in chosen.items() if value is not None})
    return found if captions or kind == "captions" else pictures_alone(found, chosen["image_weight"])


def reconstruct(run: RunFolder, settings: Settings, backbone: BackboneSource | None = None) -> StageResult:
    """Decode a picture and a caption for every unseen image: artefacts ``predicted`` and ``decoded``.

    What is decoded is kept at once, so that a stopped run continues at the item.

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
        If nothing is fitted, if an unseen image was in training, or if the latents are of another backbone.
    """
    section, backbone = settings.reconstruct, backbone or BackboneSource()

    def work() -> None:
        import numpy as np

        from unibrain import reconstruction
        from unibrain.latents import load_latents, read_manifest
        from unibrain.regression import BrainDecoder
        from unibrain.scans import load_subject

        captions = with_captions(run)
        network = backbone.load(settings.extract.backbone, _needed(DECODING, captions))
        manifest = read_manifest(run.artefact("latents"))
        if manifest["fingerprint"] != network.fingerprint:
            raise InputError(
                f"{run.artefact('latents')} come from other weights ({manifest['backbone']}) than those of "
                f"the backbone {network.name}, expected the same: "
                f"run `unibrain extract {run.root}`, then `unibrain fit {run.root}`"
            )
        test = load_subject(run.artefact("subject")).test
        decoder = BrainDecoder.load(run.artefact("decoder") / "decoder.safetensors")
        seen = np.intersect1d(test.stimulus_ids, decoder.latents_.stimulus_ids)
        if len(seen):
            raise InputError(
                f"{run.artefact('decoder')}: image id {seen[0]} ({len(seen)} in all) is to be decoded and was in "
                f"training, expected unseen images: run `unibrain fit {run.root}`"
            )
        decoder.predict_to(
            run.artefact("predicted"),
            test.betas,
            test.stimulus_ids,
            network.name,
            network.fingerprint,
            storage="npy",
            unfinished=run.cache("predict"),
        )
        predicted = load_latents(run.artefact("predicted"), verify=False)
        decoded = reconstruction.reconstruct(
            network,
            predicted,
            sampling(network.sampling("picture"), settings, "pictures", captions),
            sampling(network.sampling("caption"), settings, "captions"),
            section.seed,
            section.batch_size,
            run.cache("reconstruct"),
            captions,
        )
        reconstruction.save_decoded(run.artefact("decoded"), decoded)
        shutil.rmtree(run.cache("reconstruct"), ignore_errors=True)

    facts = backbone.facts(settings.extract.backbone)
    chosen = as_plain(section, only_result=True)
    inputs = ("subject", "latents", "decoder")
    return run_stage(run, Stage("reconstruct", chosen, inputs, ("predicted", "decoded"), work, facts=facts))
