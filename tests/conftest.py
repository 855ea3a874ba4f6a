"""What all tests share."""

import pytest

from toy_backbone import ToyBackbone


@pytest.fixture
def toy() -> ToyBackbone:
    return ToyBackbone()
