"""All parts of the small backbone, trained in a folder one after the other, and exported with a model card."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.carry import adapted, rescheduled, widened
from training.coders import condensed, train_autokl, train_clip, train_decoder, train_optimus, train_writer
from training.contexts import CAPTIONS, FlowData, flow_data, scene_latents, version_of
from training.flows import evening_maps, sampled_texts, train_flows, turned
from training.judge import fit_judge, scene_features, write_judge
from training.loop import Recipe
from training.recipe import (
    MAX_PIECES,
    SCENE_SEED,
    TEXT_TOKENS,
    TRAINING_SCENES,
    small_config,
)
from training.scenes import SceneSet, scene_set
from training.vocabularies import Vocabularies, make_vocabularies, open_vocabularies, unrepeated
from unibrain.backbone.coders import Optimus, make_autokl, make_clip
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.folder import PARTS
from unibrain.backbone.loading import write_backbone
from unibrain.errors import InputError
from unibrain.workspace.files import atomic_path
from unibrain.workspace.fingerprints import sha256_of

TITLES = {
    "autokl": "AutoKL (image autoencoder)",
    "decoder": "AutoKL's decoder, further",
    "clip": "CLIP",
    "optimus": "Optimus (text autoencoder)",
    "writer": "Optimus' decoder, further",
    "flows": "the four flows",
}
CONDENSED_BY = 6000
"""Scenes whose latents say which directions are kept."""
CARRIED_BY = 600
"""Scenes whose latents say how those of the start lie in the new ones."""
CODERS = ("autokl", "clip", "optimus")


class TrainingRun:
    """One training of the small backbone.

    Parameters
    ----------
    folder : Path
        Holds scenes, vocabularies, checkpoints and logs.
    recipes : mapping of str to Recipe
        One per part.
    device : str
        ``"cpu"`` or ``"cuda"``.
    start : Path, optional
        A backbone folder: parts that have no checkpoint yet start from its weights, and its vocabularies are taken.
        Flows of other sizes, image latents or noise schedules are taken over (`training.carry`).
    """

    def __init__(
        self, folder: Path, recipes: Mapping[str, Recipe], device: str = "cpu", start: Path | None = None
    ) -> None:
        self.folder, self.recipes, self.device, self.start = folder, recipes, device, start
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def scenes(self) -> SceneSet:
        """The training scenes."""
        return scene_set(self.folder, "train", TRAINING_SCENES, SCENE_SEED)

    @cached_property
    def moved_scenes(self) -> SceneSet:
        """The training scenes with their objects in other places."""
        return scene_set(self.folder, "train", TRAINING_SCENES, SCENE_SEED, moved=True)

    @property
    def vocabulary_folder(self) -> Path:
        """Where the tokenizers' files are."""
        return self.start or self.folder / "vocabularies"

    @cached_property
    def vocabularies(self) -> Vocabularies:
        """The tokenizers, made from the training captions or taken from the start."""
        if not self.vocabulary_folder.exists():
            make_vocabularies((caption for row in self.scenes.captions for caption in row), self.vocabulary_folder)
        return open_vocabularies(self.vocabulary_folder, TEXT_TOKENS, MAX_PIECES)

    @cached_property
    def config(self) -> BackboneConfig:
        """Sizes; the scale of the image latents is not measured yet."""
        return small_config(*self.vocabularies.sizes)

    @cached_property
    def data(self) -> FlowData:
        """What the flows are trained on, by the trained coders."""
        coders = self.coders()
        return flow_data(
            self.config, coders, self.vocabularies, self.scenes, self.moved_scenes, self.folder, self.device
        )

    def train(self, part: str) -> None:
        """Train a part, or go on training it; ``"judge"`` is fitted."""
        if part == "judge":
            judge = fit_judge(scene_features(self.scenes, self.folder), self.scenes)
            write_judge(judge, self.folder / "judge.safetensors")
            return
        recipe, begin = self.recipes[part], self._weights_of_start(part) if part in PARTS else None
        options: dict[str, Any] = {"device": self.device, "start": begin}
        if part == "autokl":
            train_autokl(self.config.autokl, self.scenes, recipe, self.folder, **options)
        elif part == "decoder":
            latents = self.data.exact["z_image"].float() / self.data.scale_factor
            train_decoder(self.coders()["autokl"], latents, self.scenes, recipe, self.folder, self.device)
        elif part == "clip":
            tokens = torch.stack([self.vocabularies.clip(row[:5]) for row in self.scenes.captions])
            train_clip(self.config.clip, self.scenes, tokens, recipe, self.folder, **options)
        elif part == "optimus":
            captions = [caption for row in self.scenes.captions for caption in row[:CAPTIONS]]
            bert_ids = self.vocabularies.bert(captions)[0].unflatten(0, (-1, CAPTIONS))
            train_optimus(self.config.optimus, bert_ids, self._gpt2_ids(), recipe, self.folder, **options)
        elif part == "writer":
            data, optimus = self.data, Optimus(self.config.optimus)
            optimus.load_state_dict(self.averaged("optimus"))
            sampled = sampled_texts(self.flows(), self.config, data, self.device)
            predicted = [brain["z_text"] for brain in data.predicted]
            ids = self._gpt2_ids()
            train_writer(
                optimus, data.exact["z_text"], predicted, sampled, ids, data.first, recipe, self.folder, self.device
            )
        else:
            options["start"] = self._flows_of_start(begin)
            train_flows(self.config, self.data, self.scenes, recipe, self.folder, **options)

    def flows(self) -> FourFlows:
        """The trained flows."""
        flows = FourFlows(self.config.flows)
        flows.load_state_dict(self.averaged("flows"))
        return flows

    def _gpt2_ids(self) -> Tensor:
        """Tokens of all captions, from the begin to the end mark: (n, captions, tokens)."""
        gpt2 = self.vocabularies.gpt2
        captions = (caption for row in self.scenes.captions for caption in row[:CAPTIONS])
        rows = [torch.tensor(gpt2.ids(caption)) for caption in captions]
        ids: Tensor = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=gpt2.pad)
        return ids.unflatten(0, (-1, CAPTIONS))  # type: ignore[no-any-return]

    def coders(self) -> dict[str, Any]:
        """The trained coders, frozen."""
        config = self.config
        coders = {
            "autokl": make_autokl(config.autokl),
            "optimus": Optimus(config.optimus),
            "clip": make_clip(config.clip),
        }
        for part, module in coders.items():
            module.load_state_dict(self.condensed_autokl if part == "autokl" else self.averaged(part))
            module.eval().requires_grad_(False)
        return coders

    @cached_property
    def condensed_autokl(self) -> dict[str, Tensor]:
        """Weights of the image autoencoder whose latents the flows model: evened if it was trained here."""
        weights = self.averaged("autokl")
        if not (self.folder / "autokl.state.pt").exists():
            return weights
        # Kept: on another processor the same directions may come out with another sign, which flows would not know.
        file = self.folder / f"condensed-{version_of(weights)}.safetensors"
        if not file.exists():
            autokl = make_autokl(self.config.autokl)
            autokl.load_state_dict(weights)
            some = scene_latents(autokl.eval().to(self.device), self.scenes, self.device, CONDENSED_BY)
            with atomic_path(file) as temporary:
                save_file(condensed(weights, some, self.config.autokl.latent_channels), temporary)
        return load_file(file)

    def averaged(self, part: str) -> dict[str, Tensor]:
        """Averaged weights of a trained part; those of the start for a coder that was not trained further."""
        file = self.folder / f"{part}.state.pt"
        if not file.exists():
            begin = self._weights_of_start(part)
            if begin is None:
                raise InputError(f"{file}: there is no checkpoint of {part}. Train that part first.")
            return begin
        averaged: dict[str, Tensor] = torch.load(file, weights_only=True, map_location="cpu")["averaged"]
        if part not in ("clip", "optimus", "flows"):
            return averaged
        # They are trained together with readers that are not kept.
        weights = {k.removeprefix(f"{part}."): v for k, v in averaged.items() if k.startswith(f"{part}.")}
        return turned(weights, evening_maps(self.folder), back=True) if part == "flows" else weights

    def _weights_of_start(self, part: str) -> dict[str, Tensor] | None:
        if self.start is None:
            return None
        weights = {key: value.float() for key, value in load_file(self.start / f"{part}.safetensors").items()}
        if part == "optimus":  # tied weights are stored once
            weights = Optimus(self.config.optimus).state_dict() | weights
            weights["gpt2.lm_head.weight"] = weights["gpt2.transformer.wte.weight"]
        return weights

    def _flows_of_start(self, weights: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
        """Weights of the start's flows, taken over to the image latents and into the sizes of these."""
        if self.start is None or weights is None:
            return None
        begun = BackboneConfig.from_json(self.start / "config.json")
        if (self.folder / "autokl.state.pt").exists():
            autokl = make_autokl(begun.autokl)
            autokl.load_state_dict(self._weights_of_start("autokl"))
            old = scene_latents(autokl.eval().to(self.device), self.scenes, self.device, CARRIED_BY)
            new = self.data.exact["z_image"][:CARRIED_BY]
            weights = adapted(weights, old * begun.autokl.scale_factor, new)
        if begun.schedule != self.config.schedule:
            weights = rescheduled(weights, begun.schedule, self.config.schedule)
        if begun.flows.model_channels != self.config.flows.model_channels:
            weights = widened(weights, FourFlows(self.config.flows), begun.flows.second_dim)
        return weights

    def export(self, target: Path) -> Path:
        """Write the backbone folder, in float16 and with a model card; it is replaced if it exists."""
        scale = self.data.scale_factor
        captions = (caption for row in self.scenes.captions for caption in row)
        optimus = replace(self.config.optimus, unrepeated=unrepeated(captions, self.vocabularies.gpt2))
        config = replace(self.config, autokl=replace(self.config.autokl, scale_factor=scale), optimus=optimus)
        weights = {part: self.averaged(part) for part in PARTS} | {"autokl": self.condensed_autokl}
        if (self.folder / "decoder.state.pt").exists():
            weights["autokl"] |= self.averaged("decoder")
        if (self.folder / "writer.state.pt").exists():
            weights["optimus"] = self.averaged("writer")
        logs = {part: self._log(part) for part in TITLES}
        extra = {"training-log.json": json.dumps(logs, indent=1) + "\n"}
        write_backbone(target, config.to_json(), weights, self.vocabulary_folder, extra)
        notes = self.folder / "notes.md"
        recipes = {part: asdict(self.recipes[part]) for part in TITLES}
        text = model_card(target, config, recipes, logs, notes.read_text() if notes.exists() else "")
        (target / "README.md").write_text(text, encoding="utf-8")
        return target

    def _log(self, part: str) -> list[dict[str, float]]:
        """Every tenth line of a part's log, and the last; those of the start for a part that was not trained."""
        file = self.folder / f"{part}.log.jsonl"
        if not file.exists():
            earlier = None if self.start is None else self.start / "training-log.json"
            return json.loads(earlier.read_text()).get(part, []) if earlier and earlier.exists() else []
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        return [*lines[9:-1:10], *lines[-1:]]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def model_card(
    folder: Path,
    config: BackboneConfig,
    recipes: Mapping[str, Mapping[str, Any]],
    logs: Mapping[str, list[dict[str, float]]],
    notes: str = "",
) -> str:
    """Write down how a backbone was made, from its logs and files; `notes` is what the logs do not show."""
    machine = f"{_processor()}, {torch.get_num_threads()} thread(s) at the time of export"
    if torch.cuda.is_available():
        machine = f"{torch.cuda.get_device_name()}, {machine}"
    lines = [
        "# The small backbone",
        "",
        "A small configuration of the same classes as the official Versatile Diffusion, trained from scratch on",
        "composed scenes (`unibrain.demo`). It knows nothing but these scenes. It is for demonstrations,",
        "tests and teaching; scientific results on real scans need the official weights.",
        "",
        f"- Data: {TRAINING_SCENES:,} scenes of the split `train`, seed {SCENE_SEED}, {config.autokl.image_size}",
        "  pixels, five captions each. Combinations of objects and background in the splits `validation` and `test`",
        "  never occur in it.",
        "- Command: `python -m training train --out training-runs/small` (stopped and continued; see the logs)",
        f"- Hardware: {machine}; PyTorch {torch.__version__}",
        f"- The flows predict: {config.schedule.prediction}; scale of the image latents: "
        f"{config.autokl.scale_factor:.5f}",
        "- Full log: `training-log.json`. Licence: MIT, as the rest of UniBrain.",
        "",
        "| part | steps | batch at the end | seed | hours | last logged losses |",
        "|---|---|---|---|---|---|",
    ]
    for part, title in TITLES.items():
        if not logs[part]:
            continue
        last, recipe = logs[part][-1], recipes[part]
        losses = ", ".join(f"{key} {value:.4g}" for key, value in last.items() if key not in ("step", "seconds"))
        hours, batch = last.get("seconds", 0.0) / 3600, recipe["batch_size"] * recipe["parts"]
        lines.append(f"| {title} | {last.get('step', 0):,.0f} | {batch} | {recipe['seed']} | {hours:.2f} | {losses} |")
    lines += ["", "| file | bytes | sha256 |", "|---|---|---|"]
    for part in PARTS:
        file = folder / f"{part}.safetensors"
        lines.append(f"| `{file.name}` | {file.stat().st_size:,} | `{sha256_of(file)}` |")
    if notes:
        lines += ["", "## Notes", "", notes.strip()]
    return "\n".join(lines) + "\n"
