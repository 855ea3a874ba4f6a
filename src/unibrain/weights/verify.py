"""Looking whether a backbone folder is still what it was when it was written."""

from pathlib import Path

from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.storage import PARTS
from unibrain.errors import InputError
from unibrain.weights.expected import Expected, expect
from unibrain.weights.manifest import MANIFEST_FILE, Manifest, sha256_of
from unibrain.weights.vocabularies import check_vocabularies

__all__ = ["verify"]


def verify(folder: Path) -> Manifest | None:
    """Hash every file of a backbone folder against its manifest, and compare keys and shapes with its configuration.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Manifest or None
        None if the folder has no manifest (the packaged backbone, or one that was trained): then only keys, shapes and
        vocabularies were checked.

    Raises
    ------
    InputError
        Naming every file that is missing or was changed, or the first key that is wrong.
    """
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: no backbone there (config.json is missing), expected a backbone's folder: check it"
        )
    manifest = Manifest.read(folder) if (folder / MANIFEST_FILE).is_file() else None
    if manifest is not None:
        _check_contents(folder, manifest)
    config = BackboneConfig.from_json(folder / "config.json")
    expected = expect(config)
    present = [part for part in PARTS if part != "optimus" or (folder / "optimus.safetensors").exists()]
    for part in present:
        _check_part(folder, part, expected)
    check_vocabularies({path.name: path for path in folder.iterdir()}, config, expected, present)
    return manifest


def _check_contents(folder: Path, manifest: Manifest) -> None:
    wrong = []
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != record.size:
            wrong.append(f"{name} has {path.stat().st_size:,} bytes instead of {record.size:,}")
        elif sha256_of(path) != record.sha256:
            wrong.append(f"{name} has another content")
    if wrong:
        raise InputError(
            f"{folder}: {'; '.join(wrong)}, expected the files as {MANIFEST_FILE} lists them: convert the weights again"
        )


def _check_part(folder: Path, part: str, expected: Expected) -> None:
    from safetensors import SafetensorError, safe_open

    path = folder / f"{part}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}), expected the backbone's {part}: convert the weights "
            "again"
        ) from None
    wanted = expected.shapes[part]
    if shapes != wanted:
        key = min(key for key in {*shapes, *wanted} if shapes.get(key) != wanted.get(key))
        raise InputError(
            f"{path}: {key} has shape {shapes.get(key, 'none, it is missing')}, expected "
            f"{wanted.get(key, 'no such key')} by config.json: take weights and config.json from the same place"
        )
