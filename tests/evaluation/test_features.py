import numpy as np

from unibrain.evaluation.features import FeatureCache


def test_each_picture_is_looked_at_once(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3)).astype(np.uint8)
    looked: list[int] = []

    def compute(some):
        looked.append(len(some))
        return some.reshape(len(some), -1).astype(np.float32)

    cache = FeatureCache(tmp_path)
    np.testing.assert_array_equal(cache.get("flat", pictures[:4], compute), pictures[:4].reshape(4, -1))
    again = pictures[[5, 1, 5, 0]]
    np.testing.assert_array_equal(cache.get("flat", again, compute), again.reshape(4, -1))
    assert looked == [4, 1]
    cache.get("another layer", pictures[:2], compute)
    assert looked == [4, 1, 2]
    FeatureCache(tmp_path).get("flat", pictures[:4], compute)
    assert looked == [4, 1, 2]


def test_a_file_that_was_cut_off_is_written_again(tmp_path):
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    FeatureCache(tmp_path).get("flat", pictures, lambda some: some.reshape(len(some), -1).astype(np.float32))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    found = FeatureCache(tmp_path).get("flat", pictures, lambda some: np.ones((len(some), 3), np.float32))
    assert found.shape == (2, 3)
