"""Which backbones are on this machine, and whether they are whole."""

from pathlib import Path

from unibrain.doctor.diagnosis import Finding, Section

__all__ = ["weights_found"]

_CAPTIONS = ("optimus.safetensors", "bert-vocab.txt", "gpt2-vocab.json", "gpt2-merges.txt")


def _lacking(folder: Path) -> list[str]:
    from unibrain.backbone.storage import PARTS, VOCABULARY_FILES

    names = ("config.json", *(f"{part}.safetensors" for part in PARTS), *VOCABULARY_FILES)
    return [name for name in names if not (folder / name).is_file()]


def _backbone(name: str, folder: Path, remedy: str, about: str = "") -> Finding:
    lacking = _lacking(folder)
    details = {"folder": str(folder), "lacking": lacking}
    if not lacking:
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        return Finding(
            name, "ok", f"{folder}, {size / 1e6:,.0f} MB{about and f'; {about}'}", "", {**details, "bytes": size}
        )
    if set(lacking) <= set(_CAPTIONS):
        said = f"{folder}: pictures only, {lacking[0]} is not there"
        return Finding(name, "note", said, "captions need Optimus' weights: fetch or import them too", details)
    return Finding(name, "problem", f"{folder}: lacks {', '.join(lacking)}", remedy, details)


def weights_found() -> Section:
    """Look for the small backbone, the official one, and any other in the home of converted backbones.

    Returns
    -------
    Section
        Files only; whether the small backbone's content is as recorded is told with the fingerprints.
    """
    from unibrain.backbone.storage import backbone_folder, backbones_home
    from unibrain.weights.listing import kept_backbones

    findings = [_backbone("small", backbone_folder("small"), "install unibrain again")]
    official, home = backbone_folder("official"), backbones_home()
    about = {kept.folder: kept.about for kept in kept_backbones([], home)}
    again = "unibrain weights fetch official (or unibrain weights import PATH, for files already on disk)"
    if official.is_dir():
        findings.append(_backbone("official", official, again, about.get(official, "")))
    else:
        findings.append(Finding("official", "note", f"not at {official}: only the small backbone can be used", again))
    for folder in sorted(home.iterdir()) if home.is_dir() else []:
        if folder.is_dir() and folder.name != "official" and not folder.name.startswith("."):
            findings.append(
                _backbone(folder.name, folder, "convert it again, or remove the folder", about.get(folder, ""))
            )
    return Section("Weights", tuple(findings))
