"""What all tests share; being here, it also lets them import `toy_backbone`."""

import pytest
from toy_backbone import ToyBackbone


@pytest.fixture
def toy() -> ToyBackbone:
    return ToyBackbone()
