"""All parts of the small backbone, trained in a folder one after the other."""

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unibrain.backbone.autokl import make_autokl
from unibrain.backbone.clip import make_clip
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.optimus import Optimus
from unibrain.backbone.loading import check_weights, write_backbone
from unibrain.errors import InputError
from unibrain.training.flow_data import Encoders, flow_data
from unibrain.training.loop import Recipe
from unibrain.training.scene_set import SceneSet, scene_set
from unibrain.training.small import SCENES, TEXT_TOKENS, small_config, with_scale
from unibrain.training.train_autokl import train_autokl
from unibrain.training.train_clip import train_clip
from unibrain.training.train_flows import train_flows
from unibrain.training.train_optimus import train_optimus
from unibrain.training.vocabularies import Vocabularies, make_vocabularies, open_vocabularies

__all__ = ["TrainingRun"]

MAX_PIECES = 24


class TrainingRun:
    """One training of the small backbone.

    Parameters
    ----------
    folder : Path
        Holds scenes, vocabularies, checkpoints and logs.
    recipes : dict of str to Recipe
        One per part.
    start : Path, optional
        A backbone folder. Encoders are taken from it as they are (training them further would change what the flows
        were trained on); the flows go on from its weights.
    """

    def __init__(self, folder: Path, recipes: dict[str, Recipe], start: Path | None = None) -> None:
        self.folder, self.recipes, self.start = folder, recipes, start
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def scenes(self) -> SceneSet:
        """The training scenes."""
        return scene_set(self.folder, "train", SCENES["train"], SCENES["seed"])

    @cached_property
    def vocabularies(self) -> Vocabularies:
        """The tokenizers, made from the training captions or taken from the start."""
        home = self.folder / "vocabularies"
        if self.start is not None:
            home = self.start
        elif not home.exists():
            make_vocabularies((caption for row in self.scenes.captions for caption in row), home)
        return open_vocabularies(home, TEXT_TOKENS, MAX_PIECES)

    @cached_property
    def config(self) -> Any:
        """Sizes; the scale of the image latents is not measured yet."""
        return small_config(*self.vocabularies.sizes)

    def autokl(self) -> None:
        """Train the image autoencoder."""
        if self.start is None:
            train_autokl(self.config.autokl, self.scenes.pictures, self.recipes["autokl"], self.folder)

    def clip(self) -> None:
        """Train CLIP."""
        if self.start is None:
            tokens = torch.stack([self.vocabularies.clip(row[:5]) for row in self.scenes.captions])
            train_clip(self.config.clip, self.scenes.pictures, tokens, self.recipes["clip"], self.folder)

    def optimus(self) -> None:
        """Train the text autoencoder."""
        if self.start is None:
            captions = [caption for row in self.scenes.captions for caption in row]
            bert_ids, _ = self.vocabularies.bert(captions)
            gpt2 = self.vocabularies.gpt2
            rows = [torch.tensor(gpt2.ids(caption)) for caption in captions]
            gpt2_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=gpt2.pad)
            train_optimus(self.config.optimus, bert_ids, gpt2_ids, self.recipes["optimus"], self.folder)

    def flows(self) -> None:
        """Train the four flows on what the other parts encode."""
        data, _ = flow_data(self.config, self.encoders(), self.vocabularies, self.scenes, self.folder)
        start = None if self.start is None else {k: v.float() for k, v in load_file(self.start / "flows.safetensors").items()}
        train_flows(self.config, data, self.recipes["flows"], self.folder, start)

    def encoders(self) -> Encoders:
        """The trained encoders, frozen."""
        modules = {
            "autokl": make_autokl(self.config.autokl),
            "optimus": Optimus(self.config.optimus),
            "clip": make_clip(self.config.clip),
        }
        for part, module in modules.items():
            _fill(module, self._averaged(part), self.start or self.folder)
            module.eval().requires_grad_(False)
        return Encoders(**modules)

    def _averaged(self, part: str) -> dict[str, Tensor]:
        if self.start is not None:
            return load_file(self.start / f"{part}.safetensors")
        file = self.folder / f"{part}.state.pt"
        if not file.exists():
            raise InputError(f"{file}: no checkpoint of {part}, expected one: train that part first")
        averaged: dict[str, Tensor] = torch.load(file, weights_only=True)["averaged"]
        # CLIP and Optimus are trained together with readers that are not kept.
        prefix = f"{part}."
        together = any(key.startswith(prefix) for key in averaged)
        return {k.removeprefix(prefix): v for k, v in averaged.items() if not together or k.startswith(prefix)}

    def export(self, target: Path) -> Path:
        """Write the backbone folder, float16, with a model card.

        Parameters
        ----------
        target : Path
            Replaced if it exists.

        Returns
        -------
        Path
            `target`.
        """
        from unibrain.training.card import model_card

        data, scale_factor = flow_data(self.config, self.encoders(), self.vocabularies, self.scenes, self.folder)
        del data
        config = with_scale(self.config, scale_factor)
        flows_file = self.folder / "flows.state.pt"
        weights: dict[str, dict[str, Tensor]] = {part: self._averaged(part) for part in ("autokl", "optimus", "clip")}
        flows = torch.load(flows_file, weights_only=True)["averaged"]
        _fill(FourFlows(config.flows), flows, flows_file)
        weights["flows"] = flows
        logs = {part: self._log(part) for part in ("autokl", "clip", "optimus", "flows")}
        home = self.start or self.folder / "vocabularies"
        recipes = {part: asdict(recipe) for part, recipe in self.recipes.items()}
        write_backbone(
            target, config.to_json(), weights, home, {"training-log.json": json.dumps(logs, indent=1) + "\n"}
        )
        (target / "README.md").write_text(model_card(target, config, recipes, logs, self._notes()), encoding="utf-8")
        return target

    def _notes(self) -> str:
        """What was written by hand about this training: ``notes.md`` in its folder, or in that of the start."""
        for home in (self.folder, self.start):
            if home is not None and (home / "notes.md").exists():
                return (home / "notes.md").read_text(encoding="utf-8")
        return ""

    def _log(self, part: str) -> list[dict[str, float]]:
        """Every tenth line of a part's log, and the last; what came before a start is kept from there."""
        earlier = []
        if self.start is not None and (self.start / "training-log.json").exists():
            earlier = json.loads((self.start / "training-log.json").read_text())[part]
        file = self.folder / f"{part}.log.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [*earlier, *lines[9:-1:10], *lines[-1:]]


def _fill(module: nn.Module, weights: dict[str, Tensor], where: Path) -> None:
    """Copy weights into a module, in the module's precision; tied ones may be there once or twice."""
    check_weights(where, module, {key: tuple(value.shape) for key, value in weights.items()})
    module.load_state_dict(weights, strict=False)
