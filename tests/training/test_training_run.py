"""All parts, trained for two steps on eight scenes, exported, loaded, and trained on from there."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unibrain.backbone import load_backbone
from unibrain.errors import InputError
from unibrain.training import small
from unibrain.training.flow_data import flow_data
from unibrain.training.loop import Recipe
from unibrain.training.run import TrainingRun

SCENES = 8
PARTS = ("autokl", "clip", "optimus", "flows")
RECIPES = {part: Recipe(steps=2, batch_size=2, learning_rate=1e-3, warmup=1, average=0.5) for part in PARTS}


@pytest.fixture(scope="module", autouse=True)
def _few_scenes() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(small.SCENES, "train", SCENES)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    trained = TrainingRun(tmp_path_factory.mktemp("training"), RECIPES)
    for part in PARTS:
        getattr(trained, part)()
    return trained


@pytest.fixture(scope="module")
def exported(run: TrainingRun) -> Path:
    return run.export(run.folder / "backbone")


@pytest.mark.parametrize("part", PARTS)
def test_every_trainer_takes_finite_steps(run: TrainingRun, part: str) -> None:
    state = torch.load(run.folder / f"{part}.state.pt", weights_only=True)
    assert state["step"] == 2
    for weights in (state["model"], state["averaged"]):
        assert all(bool(value.isfinite().all()) for value in weights.values())
    assert any(not torch.equal(state["model"][key], state["averaged"][key]) for key in state["model"])
    # A parameter that the loss does not reach has no entry here.
    reached = state["optimiser"]["state"]
    assert set(reached) == set(state["optimiser"]["param_groups"][0]["params"])
    assert all(entry["step"] >= 1 for entry in reached.values())


def test_scenes_and_vocabularies(run: TrainingRun) -> None:
    assert run.scenes.pictures.shape == (SCENES, 64, 64, 3)
    assert run.scenes.pictures.dtype == np.uint8
    assert all(len(captions) >= 5 for captions in run.scenes.captions)
    config = run.config
    bert_size, gpt2_size, clip_size = run.vocabularies.sizes
    assert config.optimus.bert["vocab_size"] == bert_size
    assert config.optimus.gpt2["vocab_size"] == gpt2_size
    assert config.clip.text["vocab_size"] == clip_size
    assert config.clip.eos_token_id == run.vocabularies.clip.eos


def test_what_the_flows_are_trained_on(run: TrainingRun, exported: Path) -> None:
    encoders = run.encoders()
    data, scale_factor = flow_data(run.config, encoders, run.vocabularies, run.scenes, run.folder)
    backbone = load_backbone(exported, device="cpu")
    assert backbone.config.autokl.scale_factor == pytest.approx(scale_factor, rel=1e-6)
    # The exported weights, and the data, are in half precision.
    close = {"atol": 0.02, "rtol": 0.02}
    np.testing.assert_allclose(data.z_image.float(), backbone.encode("z_image", run.scenes.pictures), **close)
    assert float(data.z_image.float().std()) == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(data.c_image.float(), backbone.encode("c_image", run.scenes.pictures), **close)
    contexts = np.stack([backbone.encode("c_text", row[:5]) for row in run.scenes.captions])
    np.testing.assert_allclose(data.c_text.float(), contexts.mean(1), **close)
    np.testing.assert_allclose(data.c_text_first.float(), contexts[:, 0], **close)
    latents = np.stack([backbone.encode("z_text", row[:5]) for row in run.scenes.captions])
    np.testing.assert_allclose(data.z_text.float(), latents, **close)
    empty = backbone.unconditional_contexts()
    np.testing.assert_allclose(data.empty_image, empty["c_image"], **close)
    np.testing.assert_allclose(data.empty_text, empty["c_text"], **close)


def test_export(run: TrainingRun, exported: Path) -> None:
    backbone = load_backbone(exported, device="cpu")
    assert backbone.name == "small"
    assert backbone.config.schedule.prediction == "v_prediction"
    for part in PARTS:
        averaged = torch.load(run.folder / f"{part}.state.pt", weights_only=True)["averaged"]
        if part in ("clip", "optimus"):  # trained together with readers that are not kept
            averaged = {key.removeprefix(f"{part}."): value for key, value in averaged.items() if key.startswith(part)}
        stored = load_file(exported / f"{part}.safetensors")
        assert stored.keys() == averaged.keys()
        assert all(torch.equal(value, averaged[key].to(value.dtype)) for key, value in stored.items())
    card = (exported / "README.md").read_text()
    assert f"{SCENES} scenes" in card
    assert set(json.loads((exported / "training-log.json").read_text())) == set(PARTS)


def test_flows_go_on_from_a_backbone(exported: Path, tmp_path: Path) -> None:
    recipes = {**RECIPES, "flows": dataclasses.replace(RECIPES["flows"], steps=1, learning_rate=0.0, average=0.0)}
    run = TrainingRun(tmp_path, recipes, start=exported)
    for part in PARTS:
        getattr(run, part)()
    assert {path.name for path in tmp_path.glob("*.state.pt")} == {"flows.state.pt"}
    again = run.export(tmp_path / "backbone")
    # At a learning rate of zero nothing may have changed.
    for part in PARTS:
        before, after = (load_file(folder / f"{part}.safetensors") for folder in (exported, again))
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[key]) for key, value in before.items()), part


def test_parts_are_trained_in_order(tmp_path: Path, run: TrainingRun) -> None:
    unfinished = TrainingRun(tmp_path, RECIPES)
    unfinished.__dict__["vocabularies"] = run.vocabularies
    with pytest.raises(InputError, match=r"autokl\.state\.pt: no checkpoint of autokl"):
        unfinished.flows()
