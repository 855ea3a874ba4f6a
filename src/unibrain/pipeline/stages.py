"""All stages in a row: what `unibrain run` and `unibrain demo` do."""

from collections.abc import Callable

from unibrain.pipeline.backbone_source import BackboneSource
from unibrain.pipeline.decoding_stages import extract, fit, reconstruct
from unibrain.pipeline.result_stages import evaluate, report
from unibrain.pipeline.scan_stages import prepare, simulate
from unibrain.pipeline.settings import Settings
from unibrain.pipeline.settings_file import read_settings, write_settings
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stages import StageResult

__all__ = ["STAGES", "kept_settings", "run_all", "run_one"]

STAGES: dict[str, Callable[..., StageResult]] = {
    "simulate": simulate,
    "prepare": prepare,
    "extract": extract,
    "fit": fit,
    "reconstruct": reconstruct,
    "evaluate": evaluate,
    "report": report,
}
"""Name of a stage to its function, in the order of a run."""

_NEEDS_BACKBONE = ("extract", "reconstruct", "evaluate")


def kept_settings(run: RunFolder) -> Settings:
    """Settings that the run folder holds; the defaults if it holds none.

    Raises
    ------
    InputError
        If its ``settings.toml`` is wrong.
    """
    return read_settings(run.settings) if run.settings.exists() else Settings()


def run_one(name: str, run: RunFolder, settings: Settings, backbone: BackboneSource | None = None) -> StageResult:
    """Run one stage, and keep the settings in the run folder for the stages after it.

    Parameters
    ----------
    name : str
        One of `STAGES`.
    run : RunFolder
    settings : Settings
    backbone : BackboneSource, optional
        By default that of the settings, on the best device.

    Returns
    -------
    StageResult

    Raises
    ------
    InputError
        If the input is wrong or missing, or another run works in the folder.
    """
    with run.lock():
        write_settings(run.settings, settings)
        if name in _NEEDS_BACKBONE:
            return STAGES[name](run, settings, backbone)
        return STAGES[name](run, settings)


def run_all(run: RunFolder, settings: Settings, backbone: BackboneSource | None = None) -> tuple[StageResult, ...]:
    """Run every stage; skip what is up to date.

    Parameters
    ----------
    run : RunFolder
    settings : Settings
        Scans are simulated if its ``simulate`` is there.
    backbone : BackboneSource, optional
        By default that of the settings, on the best device. It is loaded once.

    Returns
    -------
    tuple of StageResult

    Raises
    ------
    InputError
        If the input is wrong or missing, or another run works in the folder.
    """
    backbone = backbone or BackboneSource()
    names = [name for name in STAGES if name != "simulate" or settings.simulate is not None]
    with run.lock():
        return tuple(run_one(name, run, settings, backbone) for name in names)
