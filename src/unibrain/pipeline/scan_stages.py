"""The stages that lead to a prepared subject: `simulate` and `prepare`."""

import shutil
from pathlib import Path

from unibrain.errors import InputError
from unibrain.pipeline.caption_side import NO_CAPTIONS
from unibrain.pipeline.options import as_plain
from unibrain.pipeline.own_section import OwnSection
from unibrain.pipeline.settings import Settings
from unibrain.pipeline.sources import nsd_root, scan_files
from unibrain.workspace.files import atomic_folder
from unibrain.workspace.progress import say
from unibrain.workspace.run_folder import RunFolder
from unibrain.workspace.stages import Stage, StageResult, run_stage

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
        Scans come from the run's own ``nsd`` if ``simulate`` is there, from a laboratory's own files if ``own`` is
        there (then their pictures and captions become the artefact ``stimuli``), and else from the ``root`` of
        ``prepare``.

    Returns
    -------
    StageResult

    Raises
    ------
    InputError
        If no scans are named, or a file of theirs is missing or wrong.
    """
    if settings.own is not None:
        return _prepare_own(run, settings.own)
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


def _prepare_own(run: RunFolder, section: OwnSection) -> StageResult:
    from unibrain.scans.foreign import split_dataset

    for key in ("scans", "pictures", "table"):
        if getattr(section, key) is None:
            raise InputError(
                f"{run.settings} names no {key} in [own], expected scans, pictures and table: "
                f"run `unibrain import {run.root} --{key} PATH`"
            )
    scans, dataset = split_dataset(str(section.scans))
    pictures, table_path = Path(str(section.pictures)), Path(str(section.table))
    mask = None if section.mask is None else Path(section.mask)
    regions = section.region_files()
    outside = {"the scans": scans, "the folder of the pictures": pictures, "the table": table_path}
    outside |= {} if mask is None else {"the mask": mask}
    outside |= {f"the mask of region {name}": path for name, path in regions.items()}

    def work() -> None:
        from unibrain.scans import save_subject, write_split
        from unibrain.scans.custom import read_custom
        from unibrain.scans.custom_table import read_table
        from unibrain.stimuli import write_custom_stimuli

        table = read_table(table_path, section.scan_base, section.test_share, section.split_seed)
        size = write_custom_stimuli(
            run.artefact("stimuli"), pictures, table.pictures, table.captions, section.picture_size, section.crop
        )
        subject = read_custom(
            table,
            scans,
            mask,
            regions,
            dataset=dataset,
            name=section.name,
            average=section.average,
            zscore=section.zscore,
            simulated=section.simulated,
        )
        save_subject(run.artefact("subject"), subject)
        write_split(run.artefact("split"), subject)
        say(
            f"{len(table.scans)} of {table.rows} scans, {subject.betas.shape[1]} voxels, {len(table.pictures)} "
            f"pictures of {size} x {size} pixels; split: {table.split}"
        )
        if table.ignored:
            say(f"columns of {table_path.name} that were not read: {', '.join(table.ignored)}")
        if not table.has_captions:
            say(NO_CAPTIONS)

    outputs = ("subject", "split", "stimuli")
    return run_stage(run, Stage("prepare", {"own": as_plain(section)}, (), outputs, work, outside))
