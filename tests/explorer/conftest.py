"""A finished run on a tiny simulated subject, decoded by the toy backbone, opened to be explored."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from runs import SETTINGS, cheaply, toy
from starlette.testclient import TestClient

from unibrain import evaluation
from unibrain.evaluation import METRICS
from unibrain.experiments import open_bench, sweep, write_findings
from unibrain.explorer import Session, make_app, open_session
from unibrain.explorer.worker import Worker
from unibrain.pipeline import RunFolder, run_all

FEW = {name: METRICS[name] for name in ("pixcorr", "rouge1", "latent_accuracy")}


@pytest.fixture(scope="session")
def finished(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Scored by few metrics, with one experiment; not to be changed but for what is kept."""
    run = RunFolder(tmp_path_factory.mktemp("explorer") / "finished")
    shutil.copytree(finished.root, run.root)
    with cheaply(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, metrics=FEW))
        run.record("evaluate").unlink()
        run_all(run, SETTINGS, toy())
        with open_bench(run, 4, source=toy()) as bench:
            write_findings(run.experiments / "sweep", sweep(bench, {"image_weight": (0.0, 1.0)}, images=4))
    return run


@pytest.fixture(scope="module")
def session(finished: RunFolder) -> Iterator[Session]:
    with cheaply(), open_session(finished, source=toy()) as opened:
        yield opened


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    failed: list[Exception] = []
    made = Worker(failed.append)
    yield made
    made.close()
    assert failed == []


@pytest.fixture(scope="module")
def client(session: Session, worker: Worker) -> TestClient:
    return TestClient(make_app(session, worker), base_url="http://localhost:8421", headers={"x-unibrain": "1"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "made"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two metrics, where which ones there are is not the point."""
    monkeypatch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, metrics=FEW))
