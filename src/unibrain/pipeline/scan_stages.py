"""The stages that lead to a prepared subject: `simulate` and `prepare`."""

import shutil

from unibrain.errors import InputError
from unibrain.pipeline.options import as_plain
from unibrain.pipeline.settings import Settings
from unibrain.pipeline.sources import nsd_root, scan_files
from unibrain.workspace.atomic import atomic_folder
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stage import Stage, StageResult, run_stage

__all__ = ["prepare", "simulate"]


def simulate(run: RunFolder, settings: Settings) -> StageResult:
    """Write a simulated subject in NSD's file layout: artefact ``nsd``.

    Parameters
    ----------
    run : RunFolder
    settings : Settings
        Its ``simulate`` must be there.

    Returns
    -------
    StageResult

    Raises
    ------
    InputError
        If the settings are those of real scans.
    """
    section = settings.simulate
    if section is None:
        raise InputError(f"{run.settings} has no section [simulate], expected one: add it to simulate scans")
    chosen = as_plain(section) | {"subject": settings.prepare.subject}

    def work() -> None:
        from unibrain.simulation import SimulationSettings, simulate_nsd

        simulation = SimulationSettings(**as_plain(section), subjects=(settings.prepare.subject,))
        with atomic_folder(run.artefact("nsd")) as folder:
            simulate_nsd(folder, simulation)

    return run_stage(run, Stage("simulate", chosen, (), ("nsd",), work))


def prepare(run: RunFolder, settings: Settings) -> StageResult:
    """Read scans in NSD's layout into one row per image: artefacts ``subject.npz`` and ``split.json``.

    What is read of a session is kept in the run folder until the end, so that a stopped run continues at the session.

    Parameters
    ----------
    run : RunFolder
    settings : Settings
        Scans come from the run's own ``nsd`` if ``simulate`` is there, and else from the ``root`` of ``prepare``.

    Returns
    -------
    StageResult

    Raises
    ------
    InputError
        If no scans are named, or a file of theirs is missing or wrong.
    """
    section, root = settings.prepare, nsd_root(run, settings)
    inputs, outside = scan_files(run, settings)

    def work() -> None:
        from unibrain.scans import PrepareSettings, read_nsd, save_subject, write_split

        wanted = PrepareSettings(
            mask=section.mask,
            beta_version=section.beta_version,
            file_format=section.file_format,
            sessions=section.session_numbers(),
            protocol=section.protocol,
            average=section.average,
            zscore=section.zscore,
            regions=section.regions,
            noise_ceiling=section.noise_ceiling,
        )
        subject = read_nsd(root, section.subject, wanted, run.cache("prepare"))
        save_subject(run.artefact("subject"), subject)
        write_split(run.artefact("split"), subject)
        shutil.rmtree(run.cache("prepare"), ignore_errors=True)

    return run_stage(run, Stage("prepare", as_plain(section), inputs, ("subject", "split"), work, outside))
