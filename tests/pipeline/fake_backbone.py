"""The toy backbone of the pipeline's tests, which can be stopped at a batch of captions."""

from toy_backbone import ToyBackbone


class FakeBackbone(ToyBackbone):
    def __init__(self, weights: str = "one", stop_at_caption: int | None = None) -> None:
        super().__init__(weights, stop=None if stop_at_caption is None else ("sample caption 2", stop_at_caption))
