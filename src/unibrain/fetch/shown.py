"""The plan as text: what there is, what is missing, and how large it is."""

from collections.abc import Sequence
from pathlib import Path

from unibrain.fetch.plan import Plan, PlannedFile
from unibrain.scans.nsd_layout import as_ranges

__all__ = ["plan_text", "readable_bytes"]


def readable_bytes(count: int) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> readable_bytes(39_556_875_000), readable_bytes(512)
    ('39.6 GB', '512 B')
    """
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def plan_text(
    plan: Plan, address: str, missing: Sequence[PlannedFile], kept: int, free: int, *, every_file: bool = False
) -> str:
    """Lay out a plan.

    Parameters
    ----------
    plan : Plan
    address : str
        Where the files come from.
    missing : sequence of PlannedFile
        Those of the plan that are not there.
    kept : int
        Bytes of them that an earlier download left.
    free : int
        Bytes free on the disk.
    every_file : bool
        Whether to name each file instead of each kind.

    Returns
    -------
    str
    """
    layout = plan.layout
    lines = [f"{layout.name} of the Natural Scenes Dataset, sessions {as_ranges(plan.sessions)}"]
    lines += [f"from {address}", f"into {layout.root.absolute()}", ""]
    if every_file:
        absent = {file.path for file in missing}
        for file in plan.files:
            state = "" if file.path in absent else "  (is there)"
            lines.append(f"  {readable_bytes(file.remote.size):>9}  {_name(layout.root, file.path)}{state}")
    else:
        lines += _kinds(plan)
    whole = sum(file.remote.size for file in plan.files)
    left = sum(file.remote.size for file in missing)
    lines += ["", f"{len(plan.files)} files, {readable_bytes(whole)} ({whole:,} bytes)"]
    if len(missing) < len(plan.files) or kept:
        begun = f", {readable_bytes(kept)} of it begun" if kept else ""
        there = "; the others are there" if len(missing) < len(plan.files) else ""
        lines.append(f"to download: {len(missing)} files, {readable_bytes(left)}{begun}{there}")
    lines.append(f"free on the disk: {readable_bytes(free)}")
    if plan.other_format is not None:
        betas = sum(file.remote.size for file in plan.files if file.kind == "betas")
        name, size = plan.other_format
        if size < betas:
            lines.append(
                f"with --format {name} the betas are {readable_bytes(size)} instead of {readable_bytes(betas)}"
            )
    if plan.absent:
        lines.append(f"not in the bucket, and not needed: {', '.join(plan.absent)}")
    return "\n".join(lines)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _kinds(plan: Plan) -> list[str]:
    kinds: dict[str, list[PlannedFile]] = {}
    for file in plan.files:
        kinds.setdefault(file.kind, []).append(file)
    lines = []
    for kind, files in kinds.items():
        size = readable_bytes(sum(file.remote.size for file in files))
        count = f"{len(files)} file{'s' * (len(files) != 1)}"
        path = files[0].path if len(files) == 1 else files[0].path.parent
        lines.append(f"  {kind:<18} {count:>9}  {size:>9}  {_name(plan.layout.root, path)}")
    return lines
