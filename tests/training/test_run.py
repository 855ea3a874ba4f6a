"""All parts, trained for two steps on a few scenes, exported, loaded, and trained on from there."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge

from training import contexts, quality
from training import run as run_module
from training.coders import caption_codes, condensed
from training.contexts import predicted_latents, simulated_betas
from training.flows import EVEN, evening_maps, turned
from training.judge import fit_judge, write_judge
from training.loop import Recipe
from training.recipe import small_config
from training.run import TrainingRun
from training.scenes import covered, scene_set
from unibrain.backbone import load_backbone
from unibrain.backbone.coders import encode_pictures, make_autokl
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows
from unibrain.demo import describe, sample_scene
from unibrain.errors import InputError
from unibrain.evaluation.scene_judge import background_in, objects_in, read_judge

SCENES = 14
PARTS = ("autokl", "clip", "optimus", "flows", "writer", "decoder")
WRITTEN = ("autokl", "clip", "optimus", "flows")  # the others are parts of these files
FURTHER = {"optimus": "writer"}
RECIPES = {part: Recipe(steps=2, batch_size=2, learning_rate=1e-3, warmup=1, average=0.5) for part in PARTS}
RECIPES["flows"] = dataclasses.replace(RECIPES["flows"], matrix_rate=1e-3, parts=2)


@pytest.fixture(scope="module", autouse=True)
def _little() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "TRAINING_SCENES", SCENES)
        patch.setattr(contexts, "FITTED", 8)
        patch.setattr(contexts, "CHOSEN", 2)
        patch.setattr(contexts, "BRAINS", ((1001, "easy", 300), (1003, "realistic", 400)))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    trained = TrainingRun(tmp_path_factory.mktemp("training"), RECIPES)
    for part in PARTS:
        trained.train(part)
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
    for optimiser in state["optimisers"]:
        assert set(optimiser["state"]) == set(optimiser["param_groups"][0]["params"])


def test_what_the_flows_are_trained_on(run: TrainingRun, exported: Path) -> None:
    data, backbone = run.data, load_backbone(exported, device="cpu")
    assert backbone.config.autokl.scale_factor == pytest.approx(data.scale_factor, rel=1e-6)
    close = {"atol": 0.02, "rtol": 0.02}  # exported weights, and the data, are in half precision
    pictures = np.array(run.scenes.pictures)
    np.testing.assert_allclose(data.exact["z_image"].float(), backbone.encode("z_image", pictures), **close)
    assert float(data.exact["z_image"].float().std()) == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(data.exact["c_image"].float(), backbone.encode("c_image", pictures), **close)
    for name in ("c_text", "z_text"):
        encoded = np.stack([backbone.encode(name, row[:5]) for row in run.scenes.captions])
        encoded = encoded.mean(1) if name == "c_text" else encoded
        np.testing.assert_allclose(data.exact[name].float(), encoded, **close)
    for name, empty in backbone.unconditional_contexts().items():
        np.testing.assert_allclose(data.empty[name], empty, **close)
    assert len(data.predicted) == 2
    for brain in data.predicted:
        assert brain["z_text"].shape == (SCENES, 1, data.exact["z_text"].shape[-1])
        for name in ("c_image", "c_text", "z_image"):
            assert brain[name].shape == data.exact[name].shape
    moved = run.moved_scenes
    contents = [[some.scene(index).content for index in range(SCENES)] for some in (run.scenes, moved)]
    assert contents[0] == contents[1]
    assert not any(np.array_equal(*both) for both in zip(pictures, moved.pictures, strict=True))
    np.testing.assert_allclose(data.moved["c_image"].float(), backbone.encode("c_image", moved.pictures), **close)
    for brain, elsewhere in zip(data.predicted, data.predicted_moved, strict=True):
        for name, rows in elsewhere.items():
            assert rows.shape == brain[name].shape
            assert not torch.equal(rows, brain[name])


def test_predicted_latents_are_those_of_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "FITTED", 60)
    monkeypatch.setattr(contexts, "CHOSEN", 30)
    rng = np.random.default_rng(0)
    betas = rng.normal(2, 3, (120, 40)).astype(np.float32)
    tokens = (betas @ rng.normal(size=(40, 15)) + 9 * rng.normal(size=(120, 15))).reshape(120, 3, 5)
    found = predicted_latents(betas, {"c_image": torch.tensor(tokens)})["c_image"].numpy()
    x = (betas - betas[:60].mean(0)) / betas[:60].std(0, ddof=1)
    flat, guesses = tokens.reshape(120, -1), {}
    mean_eigenvalue = float(np.linalg.eigvalsh(x[:60] @ x[:60].T).mean())
    for share in contexts.ALPHAS:
        ridge = Ridge(share * mean_eigenvalue).fit(x[:60], flat[:60])
        guesses[float(np.square(ridge.predict(x[60:90]) - flat[60:90]).mean())] = ridge.predict(x)
    expected = guesses[min(guesses)]
    scale = expected.std()
    np.testing.assert_allclose(found.reshape(120, -1) / scale, expected / scale, atol=0.01)


def test_simulated_betas_differ_between_subjects_and_repeat(run: TrainingRun) -> None:
    one, again, other = (simulated_betas([run.scenes], seed, "easy", 300) for seed in (1001, 1001, 1002))
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or not np.allclose(one, other)


def test_condensed_latents_lose_little_and_are_more_even() -> None:
    torch.manual_seed(0)
    config = small_config(400, 985, 1205).autokl
    wide = make_autokl(dataclasses.replace(config, latent_channels=12)).eval()
    pictures = torch.rand(40, 3, 64, 64)
    with torch.no_grad():
        wide.quant_conv.weight[:12] *= torch.logspace(0, -2, 12)[:, None, None, None]
        latents = encode_pictures(wide, pictures, 1.0)
        narrow = make_autokl(dataclasses.replace(config, latent_channels=8)).eval()
        narrow.load_state_dict(condensed(wide.state_dict(), latents, 8))
        found = encode_pictures(narrow, pictures, 1.0)
        rows, old = (z.movedim(1, -1).flatten(0, -2).double().numpy() for z in (found, latents))
        components = PCA(8).fit(old)
        spread = rows.std(0)
        expected = components.explained_variance_**0.4
        np.testing.assert_allclose(spread**2 / spread[0] ** 2, expected / expected[0], rtol=1e-3)
        np.testing.assert_allclose(rows.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(np.corrcoef(rows.T), np.eye(8), atol=1e-3)
        # Away from the border, the decoder reads from them what it read from the components.
        kept = torch.tensor(components.inverse_transform(components.transform(old)), dtype=torch.float32)
        before = wide.decoder.conv_in(wide.post_quant_conv(kept.reshape(40, 8, 8, 12).movedim(-1, 1)))
        after = narrow.decoder.conv_in(narrow.post_quant_conv(found))
        torch.testing.assert_close(after[:, :, 1:-1, 1:-1], before[:, :, 1:-1, 1:-1], atol=1e-4, rtol=1e-3)


def test_what_the_squares_around_objects_cover(run: TrainingRun) -> None:
    shares = covered(run.scenes, 4)
    pixels = np.zeros((SCENES, 2, 64, 64))
    for index in range(SCENES):
        for slot, thing in enumerate(sample_scene(run.scenes.seed, index, "train").placements):
            top, left, side = (
                round(64 * value) for value in (thing.y - thing.size / 2, thing.x - thing.size / 2, thing.size)
            )
            pixels[index, slot, top : top + side, left : left + side] = 1
    np.testing.assert_allclose(shares, pixels.reshape(SCENES, 2, 4, 16, 4, 16).mean(axis=(3, 5)), atol=1e-6)


def test_the_judge_finds_what_features_tell(tmp_path: Path) -> None:
    scenes = scene_set(tmp_path, "train", 1300, seed=4)
    rng = np.random.default_rng(0)
    features = quality.content_matrix(scenes) @ rng.normal(size=(142, 200)) + 0.2 * rng.normal(size=(1300, 200))
    judge = fit_judge(features.astype(np.float32), scenes)
    assert min(quality.judged_pictures(judge, features.astype(np.float32), scenes).values()) > 0.95
    write_judge(judge, tmp_path / "judge.safetensors")
    stored = read_judge(tmp_path / "judge.safetensors")
    np.testing.assert_allclose(stored.objects, judge.objects, atol=1e-3, rtol=1e-3)
    first = [row[0] for row in scenes.captions]
    said = quality.judged_captions(first, scenes)
    assert said["every object named"] == 1
    assert said["background named"] > 0.9


def test_the_judge_reads_captions() -> None:
    for index in range(150):
        scene = sample_scene(0, index, "train")
        for caption in describe(scene):
            assert objects_in(caption) == {placement.object.name for placement in scene.placements}, caption
            assert background_in(caption) in (scene.background, None), caption
        assert sum(background_in(caption) == scene.background for caption in describe(scene)) >= 4
    assert objects_in("a doghouse and an elephantine thing under the stars") == set()
    assert background_in("nothing of all this") is None


def test_export(run: TrainingRun, exported: Path) -> None:
    assert load_backbone(exported, device="cpu").name == "small"
    for part in WRITTEN:
        averaged = run.averaged(FURTHER.get(part, part))
        if part == "autokl":
            averaged = run.condensed_autokl | run.averaged("decoder")
        stored = load_file(exported / f"{part}.safetensors")
        assert all(torch.equal(value, averaged[key].to(value.dtype)) for key, value in stored.items())
    assert sum(file.stat().st_size for file in exported.glob("*.safetensors")) < 40e6
    card = (exported / "README.md").read_text()
    assert f"{SCENES} scenes" in card
    assert set(json.loads((exported / "training-log.json").read_text())) == set(PARTS)


def test_training_goes_on_from_a_backbone(exported: Path, tmp_path: Path) -> None:
    still = dataclasses.replace(RECIPES["flows"], steps=1, learning_rate=0.0, matrix_rate=0.0, average=0.0)
    run = TrainingRun(tmp_path, dict.fromkeys(PARTS, still), start=exported)
    for part in ("optimus", "flows"):
        run.train(part)
    assert {path.name for path in tmp_path.glob("*.state.pt")} == {"optimus.state.pt", "flows.state.pt"}
    again = run.export(tmp_path / "backbone")
    # At a learning rate of zero nothing may have changed; what reads contexts was turned and turned back.
    for part in WRITTEN:
        before, after = (load_file(folder / f"{part}.safetensors") for folder in (exported, again))
        assert before.keys() == after.keys()
        for key, value in before.items():
            rounding = {"rtol": 2e-3, "atol": 1e-4} if ".attn2." in key else {"rtol": 0.0, "atol": 0.0}
            torch.testing.assert_close(after[key], value, **rounding)


def test_words_that_no_caption_says_twice_are_written_once(run: TrainingRun, exported: Path) -> None:
    tokenizer = run.vocabularies.gpt2
    captions = [caption for row in run.scenes.captions for caption in row]
    most: dict[int, int] = {}
    for caption in captions:
        for token, often in Counter(tokenizer.ids(caption)[1:-1]).items():
            most[token] = max(often, most.get(token, 0))
    found = BackboneConfig.from_json(exported / "config.json").optimus.unrepeated
    assert set(found) == {token for token, often in most.items() if often == 1}
    assert 0 < len(found) < len(most), "some come twice: the articles"


def test_parts_are_trained_in_order(tmp_path: Path, run: TrainingRun) -> None:
    unfinished = TrainingRun(tmp_path, RECIPES)
    unfinished.__dict__["vocabularies"] = run.vocabularies
    with pytest.raises(InputError, match=r"autokl\.state\.pt: there is no checkpoint of autokl"):
        unfinished.train("flows")


def test_codes_of_captions_are_linear_in_their_words_and_in_those_of_the_first_half() -> None:
    random, words, pad = np.random.default_rng(0), 12, 11
    lengths = random.integers(2, 8, 400)
    ids = np.where(np.arange(7) < lengths[:, None], random.integers(0, pad, (400, 7)), pad)
    config = small_config(30, words, 30).optimus
    codes = caption_codes(torch.from_numpy(ids)[:, None], config, pad)[:, 0].double().numpy()
    assert codes.std() == pytest.approx(1, abs=0.01)
    halves = [row[: -(-length // 2)] for row, length in zip(ids, lengths, strict=True)]
    bags = np.array([np.isin(np.arange(pad), some) for pair in zip(ids, halves, strict=True) for some in pair])
    bags = bags.reshape(400, -1).astype(float)
    found = LinearRegression().fit(bags[:200], codes[:200]).predict(bags[200:])
    np.testing.assert_allclose(found, codes[200:], atol=0.01)


def test_what_is_trained_further_leaves_the_rest_as_it_was(run: TrainingRun) -> None:
    before, after = run.averaged("optimus"), run.averaged("writer")
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed
    assert all(key.startswith(("gpt2.", "to_memory.", "to_embedding.")) for key in changed)


def test_weights_for_evened_tokens_do_the_same(run: TrainingRun) -> None:
    maps = evening_maps(run.folder)
    for name, (mean, even) in maps.items():
        parts = [run.data.exact[name], *(brain[name] for brain in run.data.predicted)]
        tokens = torch.cat(parts).flatten(0, 1).float()
        variances = PCA().fit(tokens.numpy()).explained_variance_
        expected = variances / (variances + EVEN * variances.mean())
        found = np.linalg.eigvalsh(np.cov(((tokens - mean) @ even).numpy(), rowvar=False))
        np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-3)
    flows = FourFlows(run.config.flows).eval()
    flows.load_state_dict(run.averaged("flows"))
    evened = FourFlows(run.config.flows).eval()
    evened.load_state_dict(turned(flows.state_dict(), maps))
    back = turned(evened.state_dict(), maps, back=True)
    for key, value in flows.state_dict().items():
        torch.testing.assert_close(back[key], value, rtol=1e-3, atol=1e-4)
    z = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    results = []
    for network, maps_of in ((flows, {}), (evened, maps)):
        prepared = []
        for name, share in (("c_image", 0.6), ("c_text", 0.4)):
            context = run.data.exact[name][:2].float()
            mean, even = maps_of.get(name, (torch.zeros(128), torch.eye(128)))
            prepared.append(network.prepare(name, (context - mean) @ even, share))
        results.append(network(z, torch.tensor([700, 20]), prepared))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
