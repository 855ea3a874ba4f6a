import numpy as np

from unibrain.evaluation.features import FeatureCache


def flat(some):
    return [some.reshape(len(some), -1).astype(np.float32), some[:, 0, 0].astype(np.float32)]


def test_each_item_is_looked_at_once(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (70, 4, 4, 3)).astype(np.uint8)
    looked: list[int] = []

    def compute(some):
        looked.append(len(some))
        return flat(some)

    cache = FeatureCache(tmp_path)
    whole, corner = cache.get("flat", pictures[:66], compute)
    np.testing.assert_array_equal(np.stack(whole), pictures[:66].reshape(66, -1))
    np.testing.assert_array_equal(np.stack(corner), pictures[:66, 0, 0])
    assert not whole[0].flags.owndata  # it lies on disk
    again = pictures[[68, 1, 68, 0]]
    np.testing.assert_array_equal(np.stack(cache.get("flat", again, compute)[0]), again.reshape(4, -1))
    assert looked == [64, 2, 1]
    cache.get("another way", pictures[:2], compute)
    assert looked == [64, 2, 1, 2]
    np.testing.assert_array_equal(FeatureCache(tmp_path).get("flat", pictures[:66], compute)[1], corner)
    assert looked == [64, 2, 1, 2]


def test_texts_have_features_too():
    texts = ["a dog", "a cat!", "a dog"]
    (lengths,) = FeatureCache().get(
        "length", texts, lambda some: [np.array([[len(text)] for text in some], np.float32)]
    )
    assert np.concatenate(lengths).tolist() == [5, 6, 5]


def test_a_file_that_was_cut_off_is_written_again(tmp_path):
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    FeatureCache(tmp_path).get("flat", pictures, flat)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    ((one, two),) = FeatureCache(tmp_path).get("flat", pictures, lambda some: [np.ones((len(some), 3), np.float32)])
    assert one.tolist() == two.tolist() == [1, 1, 1]
