"""Every stage of a run, declared from its settings: what it reads and writes, what decides the result, and its work.

`declare` does none of the work. The chain of the stages, `unibrain.workspace.stages.Chain`, knows what is up to date.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibrain.errors import InputError
from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.settings import CustomSection, Settings
from unibrain.pipeline.shards import block_work, decode_work, encode_work, known_scores, score_work, worker_facts
from unibrain.pipeline.sources import Sources, custom_files, find_custom
from unibrain.workspace.files import atomic_folder, read_json, write_bytes
from unibrain.workspace.fingerprints import digest
from unibrain.workspace.progress import say
from unibrain.workspace.provenance import peak_memory_mb
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.shards import Engine
from unibrain.workspace.stages import Chain, Record, Stage, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unibrain.audit import Material
    from unibrain.audit.scan_checks import SessionBetas
    from unibrain.latents import Latents
    from unibrain.reconstruction import Decoded
    from unibrain.regression.blocks import Sharing
    from unibrain.scans import Subject
    from unibrain.stimuli import Stimuli

STAGES = ("simulate", "prepare", "extract", "fit", "reconstruct", "controls", "evaluate", "audit", "report")
"""Stages in the order of a run; real scans have no `simulate`, and `audit` is run where it was asked for."""

NO_CAPTIONS = (
    "No captions were given with these pictures, so the caption side is switched off: pictures are decoded from the "
    "image latent and the CLIP-Image tokens alone, no caption is decoded, and caption scores are left out."
)
_SHUFFLED = (
    "This run is a control: its training scans were shuffled against their images, so nothing can be decoded from them."
)


def declare(
    run: RunFolder, settings: Settings, backbone: BackboneSource | None = None, audit_betas: bool | None = None
) -> list[Stage]:
    """Declare all stages of a run.

    Parameters
    ----------
    run : RunFolder
    settings : Settings
    backbone : BackboneSource, optional
        By default that of the settings, on the best device.
    audit_betas : bool, optional
        Whether the audit reads the betas of all sessions again; by default as it did last, and else that it does.

    Returns
    -------
    list of Stage
        In the order of `STAGES`. The audit is among them, and an input of the report, if there is one or `audit_betas`
        is given.

    Raises
    ------
    InputError
        If the settings name no scans.
    """
    return _Declaration(run, settings, backbone or BackboneSource()).stages(audit_betas)


def decoded_and_controls(run: RunFolder) -> "tuple[Decoded, dict[str, Decoded]]":
    """What a run decoded, and its controls and ceilings by name."""
    from unibrain.evaluation.controls import CONTROLS
    from unibrain.reconstruction import load_decoded

    folders = {name: run.artefact("controls") / name for name in CONTROLS}
    controls = {name: load_decoded(folder) for name, folder in folders.items() if folder.is_dir()}
    return load_decoded(run.artefact("decoded")), controls


def has_captions(latents: "Latents") -> bool:
    """Whether any of some latents was made from captions."""
    from unibrain.latents import LATENTS

    return any(name in latents for name, row in LATENTS.items() if row.source == "caption")


class _Declaration(Sources):
    def __init__(self, run: RunFolder, settings: Settings, backbone: BackboneSource) -> None:
        super().__init__(run, settings)
        self.backbone, self.network = backbone, settings.extract.backbone

    def stages(self, audit_betas: bool | None) -> list[Stage]:
        found = [self.simulate()] if self.settings.simulate is not None else []
        found += [self.prepare() if self.settings.custom is None else self.import_custom(self.settings.custom)]
        found += [self.extract(), self.fit(), self.reconstruct(), self.controls()]
        found.append(self.evaluate(found))
        audited = audit_betas is not None or self.path("audit").exists()
        if audited:
            # Latents are a bonus of the audit: those that are not current are left aside, and no reason to stop.
            found.append(self.audit(audit_betas, Chain(self.run, found).is_current("extract")))
        return [*found, self.report(audited)]

    def facts(self) -> dict[str, str]:
        return {"backbone": self.backbone.fingerprint(self.network)}

    def call(self) -> dict[str, str]:
        precision = self.backbone.precision(self.network)
        return {} if precision == "fp32" else {"precision": precision}

    def above(self, name: str) -> dict[str, Record]:
        """Records of the stages above `name`, which are all current while it runs."""
        names = STAGES[: STAGES.index(name)]
        found = {other: read_record(self.run, other) for other in names if other != "audit"}
        return {other: record for other, record in found.items() if record is not None}

    # The stages

    def simulate(self) -> Stage:
        section, subject = self.settings.simulate, self.settings.prepare.subject
        assert section is not None

        def work(*_: object) -> None:
            from unibrain.demo import SimulationSettings, simulate_nsd
            from unibrain.demo.settings import grid_of

            with atomic_folder(self.path("nsd")) as folder:
                values = section.plain()
                grid = grid_of(values.pop("voxels"))
                simulate_nsd(folder, SimulationSettings(**values, grid=grid, subjects=(subject,)))

        code = ("demo",)
        return Stage("simulate", section.plain() | {"subject": subject}, (), ("nsd",), work, code)

    def prepare(self) -> Stage:
        section, (inputs, outside) = self.settings.prepare, self.scan_files()

        def work(cache: Path, _: Engine | None) -> None:
            from unibrain.scans import read_nsd, save_subject, write_split

            subject = read_nsd(self.layout().root, section.subject, self.wanted(), cache)
            save_subject(self.path("subject"), subject)
            write_split(self.path("split"), subject)

        return Stage("prepare", section.plain(), inputs, ("subject", "split"), work, ("scans",), outside)

    def import_custom(self, section: CustomSection) -> Stage:
        from unibrain.stimuli.custom import picture_listing

        pictures, outside = Path(str(section.pictures)), custom_files(section)
        listing = picture_listing(pictures)
        outside |= {"the pictures": pictures} | ({} if listing is None else {"the names of the pictures": listing})
        outside |= {f"the mask of region {name}": path for name, path in section.region_files().items()}

        def work(*_: object) -> None:
            from unibrain.scans import read_custom, save_subject, write_split
            from unibrain.stimuli import write_custom_stimuli

            found = find_custom(section)
            table, target = found.table, self.path("stimuli")
            size = write_custom_stimuli(
                target, pictures, table.pictures, table.captions, section.picture_size, section.crop, table.is_test
            )
            subject = read_custom(
                table,
                found.scans,
                found.mask,
                section.region_files(),
                dataset=found.dataset,
                name=section.name or section.label() or "custom",
                average=section.average,
                zscore=section.zscore,
                simulated=section.simulated,
            )
            save_subject(self.path("subject"), subject)
            write_split(self.path("split"), subject)
            say(
                f"{len(table.scans)} of {table.rows} scans, {subject.betas.shape[1]} voxels, {len(table.pictures)} "
                f"pictures of {size} x {size} pixels; split: {table.split}"
            )
            if table.ignored:
                say(f"columns of {table.path.name} that were not read: {', '.join(table.ignored)}")
            if not table.has_captions:
                say(NO_CAPTIONS)

        outputs, code = ("subject", "split", "stimuli"), ("scans", "stimuli")
        return Stage("prepare", {"custom": section.plain()}, (), outputs, work, code, outside)

    def extract(self) -> Stage:
        section, (inputs, outside) = self.settings.extract, self.stimulus_files()
        choices: dict[str, Any] = {
            name: getattr(section, name) for name in ("caption", "caption_context", "caption_seed")
        }

        def work(cache: Path, engine: Engine | None) -> None:
            import numpy as np

            from unibrain.latents import extract_to, images_together

            subject, batches, chosen = self.subject(), cache / "batches", section.shared
            own = Path(chosen) if chosen else batches if engine is not None or batches.exists() else None
            common = self.encoded_for_all if not chosen and self.encoded_for_all.exists() else own
            ids = np.unique(subject.stimulus_ids)  # of single trials, each image once
            shown_to_all = self.shown_to_all()
            together = images_together(ids, section.batch_size, shown_to_all)
            if engine is not None:
                facts, places = worker_facts(self.backbone, self.network), (own or batches, common or batches)
                engine(encode_work(cache, self.run, together, *places, choices, facts))
            extract_to(
                self.path("latents"),
                self.backbone.load(self.network),
                self.stimuli(together.ids),
                ids,
                section.batch_size,
                **choices,
                storage=section.storage,
                precision=section.precision,
                unfinished=cache / "latents",
                common=shown_to_all,
                kept=own,
                kept_common=common,
            )

        return Stage(
            "extract",
            section.plain(only_result=True),
            ("subject", *inputs),
            ("latents",),
            work,
            ("latents", "backbone", "stimuli"),
            outside | self.design_file(),
            self.facts,
            self.call,
        )

    def fit(self) -> Stage:
        section = self.settings.fit

        def work(cache: Path, engine: Engine | None) -> None:
            from unibrain.latents import open_latents
            from unibrain.plot.alphas import alpha_figure
            from unibrain.regression import BrainDecoder

            train = training_view(self.subject(), self.settings).train
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
            targets = open_latents(self.path("latents")).select(train.stimulus_ids)
            sharing = self.sharing(cache, "fit", engine)
            decoder.fit(train.betas, targets, train.stimulus_ids, train.regions, sharing)
            with atomic_folder(self.path("decoder")) as folder:
                decoder.save(folder)
                if decoder.alpha_choice_:
                    write_bytes(folder / "alpha.svg", alpha_figure(decoder.alpha_choice_))

        chosen, code = section.plain(only_result=True), ("regression", "latents", "plot/canvas.py", "plot/alphas.py")
        return Stage("fit", chosen, ("subject", "latents"), ("decoder",), work, code)

    @staticmethod
    def sharing(cache: Path, name: str, engine: Engine | None) -> "Sharing | None":
        """How products with latents are shared; not at all without an engine."""
        from unibrain.regression.blocks import SharedBlocks, Sharing

        if engine is None:
            return None

        def share(blocks: SharedBlocks) -> None:
            engine(block_work(cache, name, blocks))

        return Sharing(cache / name, share)

    def reconstruct(self) -> Stage:
        section = self.settings.reconstruct

        def predict(cache: Path, engine: Engine | None) -> "Latents":
            """Latents of the test scans, in a folder of the cache."""
            import numpy as np

            from unibrain.latents import load_latents, read_manifest
            from unibrain.regression import BrainDecoder

            folder = cache / "predicted"
            if folder.exists():
                with suppress(InputError):  # damaged: predicted again
                    return load_latents(folder)
            about = read_manifest(self.path("latents"))
            decoder = BrainDecoder.load(self.path("decoder"), verify=False)
            test = self.subject().test
            seen = np.intersect1d(test.stimulus_ids, decoder.groups_)
            if len(seen):
                raise InputError(
                    f"{self.path('decoder')}: image id {seen[0]} ({len(seen)} in all) is to be decoded and was in "
                    f"training. Run `unibrain fit {self.run.root}` on other images."
                )
            decoder.predict_to(
                folder,
                test.betas,
                test.stimulus_ids,
                about["backbone"],
                about["fingerprint"],
                storage="npy",
                unfinished=cache / "unfinished",
                sharing=self.sharing(cache, "predict", engine),
            )
            return load_latents(folder, verify=False)

        def work(cache: Path, engine: Engine | None) -> dict[str, Any]:
            from unibrain.reconstruction import reconstruct, save_decoded
            from unibrain.reconstruction.reconstruct import sampling_of

            predicted, network = predict(cache, engine), self.backbone.load(self.network)
            sampling = sampling_options(self.settings, has_captions(predicted))
            chosen = sampling | {"seed": section.seed, "batch_size": section.batch_size}
            if engine is not None:
                jobs = {"decoded": (cache / "predicted", chosen)}
                engine(decode_work(cache, "reconstruct", jobs, self.backbone, self.network))
            decoded = reconstruct(network, predicted, **chosen, cache=cache / "items")
            with atomic_folder(self.path("predicted")) as folder:
                folder.rmdir()
                (cache / "predicted").replace(folder)
            save_decoded(self.path("decoded"), decoded)
            kinds = [kind for kind in network.kinds if has_captions(predicted) or kind != "caption"]
            return {"sampling": {kind: asdict(sampling_of(network, kind, sampling)) for kind in kinds}}

        return Stage(
            "reconstruct",
            section.plain(only_result=True),
            ("subject", "latents", "decoder"),
            ("predicted", "decoded"),
            work,
            ("reconstruction", "regression", "latents", "backbone"),
            facts=self.facts,
            call=self.call,
        )

    def controls(self) -> Stage:
        section = self.settings.controls

        def work(cache: Path, engine: Engine | None) -> None:
            import numpy as np

            from unibrain.evaluation.controls import CONTROLS, control_jobs, show_controls
            from unibrain.latents import load_latents, open_latents
            from unibrain.reconstruction import save_decoded

            whole, network = load_latents(self.path("predicted")), self.backbone.load(self.network)
            predicted = whole.rows(np.unique(np.linspace(0, whole.n - 1, section.images).astype(np.int64)))
            stored, subject = open_latents(self.path("latents")), self.subject()
            training = stored.select(np.unique(subject.train.stimulus_ids))
            names, seed = section.names(), self.settings.reconstruct.seed
            sampling = sampling_options(self.settings, has_captions(predicted))
            sampling |= {"batch_size": section.batch_size, "seed": seed}
            true = stored.select(predicted.stimulus_ids).read()
            jobs = control_jobs(network, predicted, true, training, names=names, sampling=sampling)
            # A span that loses nothing is the oracle.
            diffusions = sum(CONTROLS[name].diffuses for name in names if name != "span" or name in jobs)
            say(
                f"{len(names)} controls and ceilings for {predicted.n} images; {diffusions} of them diffuse, which "
                f"costs as much as decoding {diffusions * predicted.n} images"
            )
            if engine is not None:
                engine(decode_work(cache, "controls", jobs, self.backbone, self.network))
            stimuli, items = self.stimuli(subject.stimulus_ids), cache / "items"
            found = show_controls(network, predicted, training, stimuli, jobs, names=names, seed=seed, cache=items)
            with atomic_folder(self.path("controls")) as folder:
                for name, decoded in found.items():
                    save_decoded(folder / name, decoded)

        inputs, outside = self.stimulus_files()
        return Stage(
            "controls",
            section.plain(only_result=True) | self.caption_source(),
            ("subject", "latents", "predicted", "decoded", *inputs),
            ("controls",),
            work,
            ("evaluation", "reconstruction", "regression", "latents", "backbone", "stimuli"),
            outside,
            self.facts,
            self.call,
        )

    def evaluate(self, above: Sequence[Stage]) -> Stage:
        section, (inputs, outside) = self.settings.evaluate, self.stimulus_files()
        # They are told beside the scores, so they count even where they changed nothing else.
        told = digest({stage.name: stage.settings for stage in above})

        def work(cache: Path, engine: Engine | None) -> None:
            import time

            import numpy as np

            from unibrain.evaluation import evaluate, save_scores
            from unibrain.evaluation.evaluate import metrics_of, scored_metrics
            from unibrain.latents import load_latents, open_latents
            from unibrain.regression import BrainDecoder, region_accuracy
            from unibrain.scans import split_hash

            began = time.monotonic()
            subject = self.subject()
            if engine is not None:
                chosen = {"dialect": section.dialect, "protocol": section.protocol, "seed": section.seed}
                metrics = scored_metrics(metrics_of(section.dialect, section.protocol), subject.simulated)
                facts = worker_facts(self.backbone, self.network)
                engine(score_work(cache, self.run, metrics, chosen, int(subject.is_test.sum()), facts))
            decoder = BrainDecoder.load(self.path("decoder"), verify=False)
            predicted, stored = load_latents(self.path("predicted")), open_latents(self.path("latents"))
            truth = stored.select(predicted.stimulus_ids).read()
            network = self.backbone.load(self.network)
            decoded, controls = decoded_and_controls(self.run)
            scores = evaluate(
                decoded,
                self.stimuli(subject.stimulus_ids),
                network,
                simulated=subject.simulated,
                seed=section.seed,
                predicted=predicted,
                latents=truth,
                region_accuracy=region_accuracy(decoder, subject.regions, subject.test.betas, truth),
                controls=controls,
                known=known_scores(cache),
                dialect=section.dialect,
                protocol=section.protocol,
                features=cache / "features",
                training=stored.select(np.unique(subject.train.stimulus_ids)),
            )
            records = self.above("evaluate")
            stages = {name: record.provenance for name, record in records.items()}
            seconds = sum(about.seconds for about in stages.values()) + time.monotonic() - began
            peak = max(peak_memory_mb(), *(about.peak_memory_mb for about in stages.values()))
            own = {"evaluate": section.plain()}
            save_scores(
                self.path("scores"),
                scores,
                seconds=round(seconds, 1),
                peak_memory_gb=round(peak / 1000, 3),
                provenance={
                    "settings": {name: record.settings for name, record in records.items()} | own,
                    "sampling": records["reconstruct"].notes["sampling"],
                    "backbone": {"name": network.name, "fingerprint": network.fingerprint},
                    "split": {"sha256": split_hash(subject), "preparation": dict(subject.preparation)},
                    "alpha": decoder.alpha_,
                    "stages": {name: asdict(about) for name, about in stages.items()},
                },
            )

        return Stage(
            "evaluate",
            section.plain() | self.caption_source(),
            ("subject", "latents", "decoder", "predicted", "decoded", "controls", *inputs),
            ("scores",),
            work,
            ("evaluation", "regression", "latents", "backbone", "stimuli"),
            outside,
            lambda: self.facts() | {"settings of the stages above": told},
            self.call,
        )

    def audit(self, betas: bool | None, with_latents: bool) -> Stage:
        names, outside = self.stimulus_files()
        if self.settings.custom is None:
            more, files = self.scan_files()
            names, outside = (*more, *names), files | outside
        inputs = tuple(dict.fromkeys(("subject", *names, *["latents"] * with_latents)))
        last = read_record(self.run, "audit")
        if betas is None:
            betas = True if last is None else bool(last.settings.get("betas", True))

        def work(*_: object) -> None:
            from unibrain.audit import examine, save_audit

            save_audit(self.path("audit"), examine(self.material(with_latents), betas))

        chosen = {"betas": betas, **self.caption_source()}
        return Stage("audit", chosen, inputs, ("audit",), work, ("audit", "scans", "stimuli"), outside)

    def material(self, with_latents: bool) -> "Material":
        """What there is to audit."""
        from unibrain.audit import Material
        from unibrain.audit.examine import NsdTree, custom_betas

        subject, root = self.subject(), self.run.root
        latents, advice = self.path("latents"), f"run `unibrain extract {root}`, and audit again"
        found = Material.of_subject(subject, str(root), latents if with_latents else None, advice)
        custom = self.settings.custom
        if custom is None:
            tree = NsdTree(self.layout(), self.settings.prepare.mask, self.settings.prepare.format)
            found = tree.beside(found, tuple(int(session) for session in subject.preparation.get("sessions", ())))
            if self.settings.extract.captions_from == "coco":
                return found
            return replace(found, captions=lambda: self.stimuli(subject.stimulus_ids).captions_by_id)
        stimuli = self.stimuli(subject.stimulus_ids)
        found = replace(found, pictures=stimuli.read_pictures, captions=lambda: stimuli.captions_by_id)
        if not all(path.exists() for path in custom_files(custom).values()):
            return found  # a run may be looked at where the files that it was imported from are not

        def betas() -> "Iterator[SessionBetas]":
            listed = find_custom(custom)
            return custom_betas(listed.table, listed.scans, listed.mask, listed.dataset)

        return replace(found, betas=betas)

    def report(self, audited: bool) -> Stage:
        section, (inputs, outside) = self.settings.report, self.stimulus_files()
        done = experiments_done(self.run)

        def work(*_: object) -> None:
            from unibrain.evaluation import load_scores
            from unibrain.reconstruction import load_decoded
            from unibrain.regression import TEST_WARNING, load_choices
            from unibrain.report import ReportContent, regions_of, write_report

            subject, decoded = self.subject(), load_decoded(self.path("decoded"))
            stimuli, about = self.stimuli(subject.stimulus_ids), read_json(self.path("scores"))
            provenance, records = about["provenance"], self.above("report")
            fitted = provenance["settings"]["fit"]
            sampling = {f"sampling of {kind}s": values for kind, values in provenance["sampling"].items()}
            last = list(records.values())[-1].provenance
            backbone = provenance["backbone"]
            versions = {"unibrain": last.unibrain, "python": last.python, "platform": last.platform} | last.libraries
            versions[f"weights of the backbone {backbone['name']}"] = backbone["fingerprint"][:12]
            versions["split into training and test images"] = provenance["split"]["sha256"][:12]
            alpha_choices, bands = load_choices(self.path("decoder"))
            content = ReportContent(
                title=section.title,
                subject=subject.name,
                simulated=subject.simulated,
                seen=stimuli.pictures(decoded.stimulus_ids),
                decoded=decoded,
                captions=tuple(stimuli.captions(decoded.stimulus_ids)),
                scores=load_scores(self.path("scores")),
                settings=provenance["settings"] | sampling,
                versions=versions,
                seconds={name: record.provenance.seconds for name, record in records.items()},
                peak_memory_gb=about["peak_memory_gb"],
                limits=(
                    *[NO_CAPTIONS] * (not stimuli.has_captions),
                    *[_SHUFFLED] * fitted["shuffle_scans"],
                    *[TEST_WARNING] * (fitted["rescale"] == "test"),
                ),
                alpha_choices=alpha_choices,
                alpha_chart=(self.path("decoder") / "alpha.svg").read_bytes() if alpha_choices else None,
                bands=bands,
                regions=regions_of(subject),
                experiments=done,
                **(self.audited(stimuli) if audited else {}),
            )
            write_report(content, self.path("report"))

        names = ("scores", "decoded", "decoder", "subject", *["audit"] * audited, *inputs)
        chosen = section.plain() | self.caption_source() | ({"experiments": done} if done else {})
        return Stage("report", chosen, names, ("report",), work, ("report", "plot"), outside)

    def audited(self, stimuli: "Stimuli") -> dict[str, Any]:
        """The audit for the page, with the pictures that it shows."""
        from unibrain.audit import load_audit
        from unibrain.report import shown_pairs

        audit = load_audit(self.path("audit"))
        ids = sorted({identity for pair in shown_pairs(audit) for identity in (pair.test_id, pair.train_id)})
        pictures = dict(zip(ids, stimuli.pictures(ids), strict=True)) if ids else {}
        return {"audit": audit, "audit_pictures": pictures}


def sampling_options(settings: Settings, captions: bool) -> dict[str, Any]:
    """How a run samples, as `unibrain.reconstruction.reconstruct` takes it."""
    section = settings.reconstruct
    weight = section.image_weight_pictures
    if not captions and weight not in (None, 1):
        raise InputError(
            f"image_weight_pictures is {weight}, and no captions were given that could have the rest. Leave it out, or "
            "import captions."
        )
    weights = {"picture": weight if captions else 1.0, "caption": section.image_weight_captions}
    names = ("guidance_scale", "strength", "steps", "eta", "sampler", "guidance_end")
    return {"image_weight": weights} | {name: getattr(section, name) for name in names}


STATE = "fingerprint of the run"
"""Under which experiments write down the state of the run that they are of."""


def run_fingerprint(run: RunFolder) -> str:
    """Digest of everything that decided what a run decoded: experiments on it are of that, and no other, state."""
    records = [read_record(run, name) for name in STAGES[: STAGES.index("reconstruct") + 1]]
    return digest(*[[one.stage, one.settings, one.facts, one.call, one.code] for one in records if one is not None])[
        :12
    ]


def experiments_done(run: RunFolder) -> dict[str, str]:
    """Name and title of the experiments that were done on this state of the run."""
    found = {path.parent.name: read_json(path) for path in sorted(run.experiments.glob("*/findings.json"))}
    current = run_fingerprint(run)
    return {name: str(one["title"]) for name, one in found.items() if one["about"].get(STATE) == current}


def training_view(subject: "Subject", settings: Settings) -> "Subject":
    """The subject as the decoder is fitted to it: shuffled against the images if the settings ask for that control."""
    if not settings.fit.shuffle_scans:
        return subject
    import numpy as np

    rows = np.arange(len(subject.stimulus_ids))
    train = np.flatnonzero(~subject.is_test)
    rows[train] = np.random.default_rng(settings.fit.seed).permutation(train)
    return replace(subject, betas=subject.betas[rows])
