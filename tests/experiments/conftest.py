"""A second subject, and a bench on the run that all tests share."""

from collections.abc import Iterator
from functools import partial

import pytest
from runs import SETTINGS, cheaply, toy

from unibrain import evaluation
from unibrain.evaluation import METRICS
from unibrain.experiments import Bench, open_bench
from unibrain.pipeline import PrepareSection, RunFolder, run_all


@pytest.fixture(autouse=True)
def _cheap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if "drawn" not in request.fixturenames:
        svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, file, **options: file.write(svg))
    with cheaply():
        yield


@pytest.fixture
def drawn() -> None:
    """Figures are drawn; elsewhere they are made and left blank."""


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Another subject who saw the same test images; not to be changed but for what a bench keeps."""
    run = RunFolder(tmp_path_factory.mktemp("experiments") / "second")
    with cheaply():
        run_all(run, SETTINGS.model_copy(update={"prepare": PrepareSection(subject=2)}), toy())
    return run


@pytest.fixture
def bench(run: RunFolder) -> Iterator[Bench]:
    with open_bench(run, 6, source=toy()) as opened:
        yield opened


@pytest.fixture
def few_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three metrics of pictures and two of captions, where which ones there are is not the point."""
    few = {name: METRICS[name] for name in ("pixcorr", "ssim", "two_way_picture", "rouge1", "rougeL")}
    monkeypatch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, metrics=few))
