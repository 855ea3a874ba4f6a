import numpy as np
import pytest
from skimage import data

from unibrain.errors import InputError
from unibrain.evaluation import features
from unibrain.evaluation.pixels import at_size

needs_network = pytest.mark.skipif(
    not features.network_is_installed(), reason="EfficientNet-lite0 is not installed (extra demo)"
)


def square(picture):
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return picture[None, top : top + side, left : left + side]


@pytest.fixture(scope="module")
def photographs():
    """A cat, a cup of coffee, a person: uint8 (3, 256, 256, 3)."""
    return np.concatenate([at_size(square(p), 256, 256) for p in (data.chelsea(), data.coffee(), data.astronaut())])


@needs_network
def test_the_network_names_a_cat_and_a_cup(photographs):
    """ImageNet classes, so weights, value range and layer are the right ones."""
    import torch

    logits = features._load_network()._fc(torch.from_numpy(features.picture_features(photographs)))
    cat, cup, _ = logits.argmax(1).tolist()
    assert cat in range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian cat
    assert cup in (504, 967, 968)  # mug, espresso, cup
    assert logits.softmax(1)[1].max() > 0.9


@needs_network
def test_features_are_those_of_the_picture_whatever_its_size_and_batch(photographs):
    large = features.picture_features(photographs, batch_size=2)
    assert large.shape == (3, 1280)
    assert large.dtype == np.float32
    np.testing.assert_allclose(features.picture_features(photographs[2:]), large[2:], atol=1e-4)
    small = features.picture_features(at_size(photographs, 112, 112))
    similarity = np.corrcoef(large, small)[:3, 3:]
    others = similarity[~np.eye(3, dtype=bool)]
    assert np.diag(similarity).min() > 0.5 > others.max()


def test_without_the_network_the_message_says_how_to_install_it(monkeypatch, photographs):
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "unibrain\[demo\]"'):
        features.picture_features(photographs)
