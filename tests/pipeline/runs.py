"""What the tests of runs share: tiny settings, and a stage as a command runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from toy_backbone import ToyBackbone
from unibrain.pipeline import (
    BackboneSource,
    ControlsSection,
    CustomSection,
    RunFolder,
    Settings,
    SimulateSection,
    kept_settings,
    run_one,
)
from unibrain.workspace.stages import StageResult

FEW_CONTROLS = ControlsSection(controls="random,oracle", images=2)
SETTINGS = Settings(simulate=SimulateSection(training_images=30, test_images=6, sessions=2), controls=FEW_CONTROLS)


@contextmanager
def cheaply() -> Iterator[None]:
    """Without what costs seconds in every run and has its own tests: a network, many shuffles, a plot."""
    with pytest.MonkeyPatch.context() as patch:
        looked_at = "unibrain.evaluation.metrics.picture_features"
        patch.setattr(looked_at, lambda some: np.stack([np.resize(p[::8, ::8], 1280) for p in some]).astype("float32"))
        patch.setattr(import_module("unibrain.evaluation.evaluate"), "_SHUFFLES", 2)
        patch.setattr("unibrain.plot.alphas.alpha_figure", lambda choices: b"<svg xmlns='http://www.w3.org/2000/svg'/>")
        yield


def toy(weights: str = "one", **options: object) -> BackboneSource:
    return BackboneSource(loaded=ToyBackbone(weights, **options))  # type: ignore[arg-type]


def command(run: RunFolder, name: str, backbone: BackboneSource | None = None, **values: object) -> StageResult:
    """Run one stage with the settings of the run folder, some of which are replaced."""
    settings = kept_settings(run)
    section = "custom" if name == "prepare" and settings.custom is not None else name
    if values:
        settings = settings.changed(section, values, where="--")
    return run_one(name, run, settings, backbone or toy())


def edit(run: RunFolder, before: str, after: str) -> None:
    """Edit the settings file by hand."""
    text = run.settings.read_text(encoding="utf-8")
    assert before in text
    run.settings.write_text(text.replace(before, after), encoding="utf-8")


def custom_settings(export: Path, table: str = "trials.csv") -> Settings:
    custom = CustomSection(
        scans=str(export / "betas.npy"),
        pictures=str(export / "shown"),
        table=str(export / table),
        regions=f"early={export / 'early.npy'}",
        test_share=0.2,
        name="lab-1",
        simulated=True,
    )
    return Settings(custom=custom, controls=FEW_CONTROLS)
