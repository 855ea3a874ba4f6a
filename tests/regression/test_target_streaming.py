"""Targets on disk: streamed fits and predictions, decoders that refer to them, resuming, bounded memory, export."""

import errno
import os

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from unibrain.errors import InputError
from unibrain.latents import LATENT_NAMES, Latents, LatentWriter, load_latents, open_latents, save_latents
from unibrain.latents import writer as writer_module
from unibrain.regression import BrainDecoder, export_weights
from unibrain.regression import gain_fit as gain_module
from unibrain.regression import targets as targets_module
from unibrain.regression.subjects import for_each_subject, threads_per_job
from unibrain.regression.targets import Targets, block_width

SHAPES = {"z_image": (2, 4, 3), "z_text": (6,), "c_image": (3, 5), "c_text": (4, 5)}
N, M, VOXELS = 40, 9, 60


@pytest.fixture(autouse=True)
def _record_every_part(monkeypatch):
    monkeypatch.setattr(writer_module, "INTERVAL", 0.0)


def make(n=N, m=M, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + m, VOXELS)).astype(np.float32)
    arrays = []
    for shape in SHAPES.values():
        weights = rng.standard_normal((VOXELS, *shape)) / np.sqrt(VOXELS)
        noisy = np.tensordot(X, weights, 1) + rng.standard_normal((n + m, *shape)) + 2
        arrays.append(noisy.astype(np.float32))
    return X, Latents(np.arange(100, 100 + n + m), *arrays)


@pytest.fixture(scope="module")
def data():
    return make()


def store(folder, latents, storage="zarr", precision="float32"):
    writer = LatentWriter(folder, latents.stimulus_ids, "small", "f", storage=storage, precision=precision)
    writer.begin(SHAPES)
    writer.write_rows(0, dict(latents.items()))
    writer.finish()
    return open_latents(folder)


@pytest.fixture
def stored(tmp_path, data, monkeypatch):
    monkeypatch.setattr(writer_module, "CHUNK", (16, 8))
    # Blocks of a few columns, so that there are many of them.
    monkeypatch.setattr(targets_module, "MAX_BLOCK_BYTES", N * 4 * 9)
    return store(tmp_path / "latents", data[1])


def same(one, other, tolerance=2e-5):
    for name in LATENT_NAMES:
        assert np.abs(one[name] - other[name]).max() < tolerance * np.abs(other[name]).max(), name


@pytest.mark.parametrize("storage", ["npy", "zarr"])
@pytest.mark.parametrize("parameters", [{}, {"alpha": 20.0}, {"alpha_per": "token"}, {"alpha_per": "target"}])
@pytest.mark.parametrize("rows", ["neighbours", "scattered"])
def test_streamed_equals_in_memory(tmp_path, data, stored, storage, parameters, rows):
    X, latents = data
    if storage == "npy":
        stored = store(tmp_path / "npy", latents, "npy")
    order = np.arange(N) if rows == "neighbours" else np.random.default_rng(1).permutation(N + M)[:N]
    ids = latents.stimulus_ids[order]
    expected = BrainDecoder(**parameters).fit(X[order], latents.select(ids))
    found = BrainDecoder(**parameters).fit(X[order], stored.select(ids), ids)
    assert found.alpha_ == expected.alpha_
    same(found.predict(X[:5]), expected.predict(X[:5]))
    for name in LATENT_NAMES:
        np.testing.assert_allclose(found.gain_[name], expected.gain_[name], rtol=1e-4)


def test_half_precision_targets_are_those_of_half_precision(tmp_path, data):
    X, latents = data
    half = store(tmp_path / "half", latents, precision="float16")
    rounded = Latents(
        latents.stimulus_ids, *(a.astype(np.float16).astype(np.float64) for _, a in latents.items())
    ).rows(slice(0, N))
    decoder = BrainDecoder(alpha=9.0, rescale="none").fit(X[:N], half.at(np.arange(N)))
    predicted = decoder.predict(X[N:])
    assert predicted.c_text.dtype == np.float32
    for name in LATENT_NAMES:
        expected = Ridge(9.0).fit(X[:N].astype(float), rounded[name].reshape(N, -1)).predict(X[N:].astype(float))
        assert np.abs(predicted[name].reshape(M, -1) - expected).max() < 1e-4 * np.abs(expected).max()


def test_every_block_is_read_once_and_ahead(data, monkeypatch):
    reads = []

    class Reader:
        shape, dtype, chunk_columns = (N, 24), np.dtype(np.float32), 4
        values = data[1].z_image[:N].reshape(N, -1)

        def __getitem__(self, key):
            reads.append((key[1].start, key[1].stop))
            return self.values[key]

    targets = Targets(Reader(), "z_image", np.arange(N))
    blocks = []
    for block, values in targets.blocks(8):
        np.testing.assert_array_equal(values, Reader.values[:, block])
        blocks.append((block.start, block.stop))
    assert reads == blocks == [(0, 8), (8, 16), (16, 24)]


def test_block_width_follows_memory_and_chunks(stored):
    train = stored.at(np.arange(N))
    targets = Targets(train.columns("c_text"), "c_text", train.stimulus_ids)
    assert targets.chunk_columns == 8
    narrow, wide = (block_width(targets, 10, memory) for memory in (5_000, 1e9))
    assert (narrow < 8, wide) == (True, 8)
    with pytest.raises(InputError, match="memory is 1e-07 GB, expected at least"):
        block_width(targets, 10, 100)


def test_little_memory_changes_nothing(data, stored):
    X = data[0]
    wide, narrow = (
        BrainDecoder(alpha=20.0, memory=memory).fit(X[:N], stored.at(np.arange(N))).predict(X[N:])
        for memory in (2.0, 3e-5)
    )
    same(narrow, wide)


# Decoders on disk


@pytest.mark.parametrize("parameters", [{"alpha": 20.0}, {"alpha_per": "token"}, {"rescale": "test"}])
def test_a_decoder_refers_to_its_targets(tmp_path, data, stored, parameters):
    X = data[0]
    decoder = BrainDecoder(**parameters).fit(X[:N], stored.at(np.arange(N)))
    expected = decoder.predict(X[N:])
    (tmp_path / "run" / "decoder").mkdir(parents=True)
    path = tmp_path / "run" / "decoder" / "decoder.safetensors"
    decoder.save(path)
    loaded = BrainDecoder.load(path)
    found = loaded.predict(X[N:])
    for name in LATENT_NAMES:
        np.testing.assert_array_equal(found[name], expected[name])
        np.testing.assert_array_equal(loaded.alphas_[name], decoder.alphas_[name])
    decoder.save(tmp_path / "whole.safetensors", embed_targets=True)
    same(BrainDecoder.load(tmp_path / "whole.safetensors").predict(X[N:]), expected)


@pytest.fixture
def saved(tmp_path, data, stored):
    BrainDecoder(alpha=20.0).fit(data[0][:N], stored.at(np.arange(N))).save(tmp_path / "decoder.safetensors")
    return tmp_path / "decoder.safetensors"


def test_a_run_may_be_moved_as_a_whole(tmp_path, data, saved):
    expected = BrainDecoder.load(saved).predict(data[0][N:])
    (tmp_path / "elsewhere").mkdir()
    for name in ("latents", "decoder.safetensors"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    same(BrainDecoder.load(tmp_path / "elsewhere" / "decoder.safetensors").predict(data[0][N:]), expected, 1e-12)


def test_missing_targets_are_named_and_may_be_elsewhere(tmp_path, data, saved):
    (tmp_path / "latents").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"its training targets are not at .*latents.*put them back"):
        BrainDecoder.load(saved)
    assert len(BrainDecoder.load(saved, targets=tmp_path / "moved").predict(data[0][0])) == 1


def test_changed_targets_are_refused(tmp_path, data, saved):
    chunk = tmp_path / "latents" / "arrays.zarr" / "c_text" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[0] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(InputError, match=r"c_text.*does not match its checksum"):
        BrainDecoder.load(saved)
    store(tmp_path / "latents", make(seed=1)[1])
    with pytest.raises(InputError, match="other latents than before"):
        BrainDecoder.load(saved)


def test_targets_in_memory_cannot_be_referred_to(tmp_path, data):
    decoder = BrainDecoder(alpha=20.0).fit(data[0][:N], data[1].rows(slice(0, N)))
    with pytest.raises(InputError, match="the training targets are in memory"):
        decoder.save(tmp_path / "decoder.safetensors", embed_targets=False)


# Predictions on disk


def test_predictions_stream_to_disk_and_continue_at_the_block(tmp_path, data, stored, monkeypatch):
    X, latents = data
    decoder = BrainDecoder(alpha=20.0).fit(X[:N], stored.at(np.arange(N)))
    expected = decoder.predict(X[N:])
    ids = latents.stimulus_ids[N:]
    writes, write = [], LatentWriter.write_columns

    def stopping(self, name, columns, values):
        if len(writes) == 4:
            writes.append("stopped")
            raise KeyboardInterrupt
        writes.append((name, columns.start))
        write(self, name, columns, values)

    monkeypatch.setattr(LatentWriter, "write_columns", stopping)
    with pytest.raises(KeyboardInterrupt):
        decoder.predict_to(tmp_path / "predicted", X[N:], ids)
    decoder.predict_to(tmp_path / "predicted", X[N:], ids)
    writes.remove("stopped")
    # Every block was written once, over both runs.
    assert len(set(writes)) == len(writes) > 6
    found = load_latents(tmp_path / "predicted")
    np.testing.assert_array_equal(found.stimulus_ids, ids)
    same(found, expected, 1e-12)
    assert not [path for path in tmp_path.iterdir() if "unfinished" in path.name]


def test_unfinished_predictions_of_other_scans_are_not_continued(tmp_path, data, stored, monkeypatch):
    X, latents = data
    decoder = BrainDecoder(alpha=20.0).fit(X[:N], stored.at(np.arange(N)))
    with monkeypatch.context() as patch:
        patch.setattr(LatentWriter, "finish", lambda self: None)
        decoder.predict_to(tmp_path / "predicted", X[N:], latents.stimulus_ids[N:])
    other = -X[N:]
    decoder.predict_to(tmp_path / "predicted", other, latents.stimulus_ids[N:])
    same(load_latents(tmp_path / "predicted"), decoder.predict(other), 1e-12)


def test_a_full_disk_while_predicting_is_one_sentence(tmp_path, data, stored, monkeypatch):
    X = data[0]
    decoder = BrainDecoder(alpha=20.0).fit(X[:N], stored.at(np.arange(N)))

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(InputError, match="no space left on the disk"):
            decoder.predict_to(tmp_path / "predicted", X[N:])
    decoder.predict_to(tmp_path / "predicted", X[N:])
    assert len(load_latents(tmp_path / "predicted")) == M


# Rescaling, penalties, repeats


def test_gain_of_many_images_is_that_of_a_seeded_sample(data, monkeypatch):
    X, latents = make(n=400)
    all_images = BrainDecoder(alpha=20.0).fit(X[:400], latents.rows(slice(0, 400)))
    monkeypatch.setattr(gain_module, "EXACT_IMAGES", 100)
    monkeypatch.setattr(gain_module, "SAMPLED_IMAGES", 200)
    sampled, again = (BrainDecoder(alpha=20.0).fit(X[:400], latents.rows(slice(0, 400))) for _ in range(2))
    for name in LATENT_NAMES:
        np.testing.assert_array_equal(sampled.gain_[name], again.gain_[name])
        np.testing.assert_allclose(sampled.gain_[name], all_images.gain_[name], rtol=0.1)


@pytest.mark.parametrize("rescale", ["train", "train_per_dimension"])
def test_one_alpha_by_cholesky_has_the_gain_of_the_eigendecomposition(data, rescale):
    X, latents = data
    ids = np.repeat(np.arange(N // 2), 2)
    trials = Latents(ids, *(array[:N] for _, array in latents.items()))
    once = BrainDecoder(alpha=20.0, rescale=rescale).fit(X[:N], trials)
    eigen = BrainDecoder(alphas=(20.0,), rescale=rescale, folds=4).fit(X[:N], trials)
    assert type(once.systems_[0].solver) is not type(eigen.systems_[0].solver)
    for name in LATENT_NAMES:
        np.testing.assert_allclose(once.gain_[name], eigen.gain_[name], rtol=1e-4)


def test_test_set_statistics_are_those_of_the_recipe(data):
    X, latents = data
    train = latents.rows(slice(0, N))
    plain = BrainDecoder(alpha=20.0, rescale="none").fit(X[:N], train).predict(X[N:])
    decoder = BrainDecoder(alpha=20.0, rescale="test").fit(X[:N], train)
    found = decoder.predict(X[N:])
    for name in LATENT_NAMES:
        standard = (plain[name] - plain[name].mean(axis=0)) / plain[name].std(axis=0)
        expected = standard * train[name].std(axis=0) + train[name].mean(axis=0)
        np.testing.assert_allclose(found[name], expected, atol=1e-3)
    with pytest.raises(InputError, match="1 scans are to be decoded with rescale = test"):
        decoder.predict(X[N])


def test_given_penalties_per_target(data):
    X, latents = data
    rng = np.random.default_rng(0)
    alpha = {name: 10.0 ** rng.integers(0, 4, int(np.prod(shape))) for name, shape in SHAPES.items()}
    predicted = BrainDecoder(alpha=alpha, rescale="none").fit(X[:N], latents.rows(slice(0, N))).predict(X[N:])
    for name in LATENT_NAMES:
        model = Ridge(alpha[name]).fit(X[:N].astype(float), latents[name][:N].reshape(N, -1).astype(float))
        expected = model.predict(X[N:].astype(float))
        assert np.abs(predicted[name].reshape(M, -1) - expected).max() < 1e-4 * np.abs(expected).max()


def test_leaving_one_image_out_chooses_too(data):
    X, latents = data
    decoder = BrainDecoder(folds="loo").fit(X[:N], latents.rows(slice(0, N)))
    assert decoder.alpha_choice_["c_text"].scheme == "loo"


def test_bands_have_their_own_penalties_and_survive_a_file(tmp_path):
    rng = np.random.default_rng(0)
    X, latents = make(n=120)
    early = np.arange(VOXELS) < 20
    # Nothing but the early voxels carries the image latent.
    z_image = np.tensordot(X[:, early], rng.standard_normal((20, *SHAPES["z_image"])), 1).astype(np.float32)
    latents = Latents(latents.stimulus_ids, z_image, latents.z_text, latents.c_image, latents.c_text)
    regions = {"V1": early, "late": ~early}
    decoder = BrainDecoder(bands={"early": ["V1"]}).fit(X[:120], latents.rows(slice(0, 120)), regions=regions)
    choice = decoder.band_choice_
    assert choice.bands == ("early", "other")
    shares = dict(zip(choice.latents, choice.shares, strict=True))
    assert shares["z_image"][0] > 10 * abs(shares["z_image"][1])
    # It is the ridge of scans whose voxels are scaled band by band.
    system = next(system for system in decoder.systems_ if "z_image" in system.latents)
    scale = np.sqrt(system.weights)
    model = Ridge(decoder.alpha_["z_image"]).fit(X[:120] * scale, z_image[:120].reshape(120, -1))
    plain = BrainDecoder(rescale="none", bands={"early": ["V1"]}).fit(
        X[:120], latents.rows(slice(0, 120)), regions=regions
    )
    expected = model.predict(X[120:] * scale)
    assert np.abs(plain.predict(X[120:]).z_image.reshape(M, -1) - expected).max() < 1e-4 * np.abs(expected).max()
    decoder.save(tmp_path / "decoder.safetensors")
    loaded = BrainDecoder.load(tmp_path / "decoder.safetensors")
    same(loaded.predict(X[120:]), decoder.predict(X[120:]), 1e-12)
    np.testing.assert_array_equal(loaded.band_choice_.shares, choice.shares)
    with pytest.raises(InputError, match="expected alpha = 'cv' per latent"):
        BrainDecoder(alpha=3.0, bands={"early": ["V1"]}).fit(X[:120], latents.rows(slice(0, 120)), regions=regions)
    with pytest.raises(InputError, match="there are no regions"):
        BrainDecoder(bands={"early": ["V1"]}).fit(X[:120], latents.rows(slice(0, 120)))


@pytest.mark.parametrize("rescale", ["none", "train"])
def test_stored_targets_that_are_not_finite_are_named_by_row_and_block(tmp_path, data, rescale):
    X, latents = data
    z_text = latents.z_text.copy()
    z_text[5, 3] = np.nan
    bad = Latents(latents.stimulus_ids, latents.z_image, z_text, latents.c_image, latents.c_text)
    save_latents(tmp_path / "latents", bad, "small", "f")
    targets = open_latents(tmp_path / "latents").at(np.arange(N))
    with pytest.raises(InputError, match=r"z_text of image id 105 .*row 5, target 3, in the block of targets 0 to 5"):
        BrainDecoder(alpha=1.0, rescale=rescale).fit(X[:N], targets)


# Weights


@pytest.mark.parametrize("parameters", [{"alpha": 20.0}, {"alpha_per": "target"}])
def test_exported_weights_are_those_of_ridge(tmp_path, data, stored, parameters, monkeypatch):
    X, latents = data
    decoder = BrainDecoder(memory=2e-4, **parameters).fit(X[:N], stored.at(np.arange(N)))
    for name in LATENT_NAMES:
        Y = latents[name][:N].reshape(N, -1).astype(float)
        alpha = np.broadcast_to(decoder.alphas_[name], Y.shape[1])
        expected = Ridge(alpha).fit(X[:N].astype(float), Y).coef_.T
        found = export_weights(decoder, name)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        part = export_weights(decoder, name, [4, 1], np.arange(VOXELS) < 7, path=tmp_path / "weights.npy")
        np.testing.assert_allclose(part, found[:7, [4, 1]], atol=1e-6)
        assert np.load(tmp_path / "weights.npy", allow_pickle=False).shape == (7, 2)
        regions = {"a": np.arange(VOXELS) == 3, "b": np.arange(VOXELS) >= 58}
        np.testing.assert_allclose(
            export_weights(decoder, name, slice(2, 5), regions=regions), found[[3, 58, 59], 2:5], atol=1e-6
        )
    with pytest.raises(InputError, match="latent is 'z'"):
        export_weights(decoder, "z")
    with pytest.raises(InputError, match="targets names 6, expected 0 to 5"):
        export_weights(decoder, "z_text", [6])
    with pytest.raises(InputError, match="both voxels and regions"):
        export_weights(decoder, "z_text", voxels=[1], regions=regions)


def test_exported_weights_predict(data, stored):
    X = data[0]
    decoder = BrainDecoder(alpha=20.0, rescale="none").fit(X[:N], stored.at(np.arange(N)))
    weights = export_weights(decoder, "c_image").astype(float)
    mean = data[1].c_image[:N].reshape(N, -1).mean(axis=0)
    expected = (X[N:] - decoder.betas_mean_) @ weights + mean
    np.testing.assert_allclose(decoder.predict(X[N:]).c_image.reshape(M, -1), expected, atol=1e-4)


# Devices and several subjects


def test_pytorch_decodes_the_same(data, stored):
    X = data[0]
    numpy, torch = (
        BrainDecoder(alpha=20.0, device=device).fit(X[:N], stored.at(np.arange(N))) for device in ("cpu", "torch")
    )
    same(torch.predict(X[N:]), numpy.predict(X[N:]))


def test_cores_are_shared_out():
    assert [threads_per_job(jobs, 8) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    with pytest.raises(InputError, match="jobs is 0"):
        threads_per_job(0)


def blas_threads(subject):
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    return subject, max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def test_subjects_side_by_side_use_no_more_threads_than_cores():
    assert for_each_subject(blas_threads, [5], 2)[0][0] == 5
    found = for_each_subject(blas_threads, [1, 2, 7], 2)
    assert found == [(subject, threads_per_job(2)) for subject in (1, 2, 7)]
