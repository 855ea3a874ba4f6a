"""What a complete backbone of a configuration holds, and whether a folder still holds it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.folder import PARTS
from unibrain.backbone.loading import build_empty, check_weights, look_into
from unibrain.backbone.tokenizers import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.errors import InputError
from unibrain.weights.manifest import Manifest, read_manifest
from unibrain.workspace.fingerprints import sha256_of
from unibrain.workspace.progress import track

TIED = "gpt2.lm_head.weight"
"""GPT-2's output layer is its embedding, `gpt2.transformer.wte.weight`; it is written once, as that."""

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Part to key to shape."""


def empty_networks(config: BackboneConfig) -> dict[str, Any]:
    """Build the networks of all parts without memory for their weights."""
    try:
        return {part: build_empty(config, part) for part in PARTS}
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(
            f"Configuration {config.name!r}: no network can be built of these sizes ({error}). Take the config.json "
            "that belongs to the weights."
        ) from None


def expected_shapes(config: BackboneConfig) -> Shapes:
    """Shapes of all keys that a complete backbone has, tied ones once."""
    return {
        part: {key: tuple(value.shape) for key, value in network.state_dict().items() if key != TIED}
        for part, network in empty_networks(config).items()
    }


def check_vocabularies(
    paths: Mapping[str, Path], config: BackboneConfig, shapes: Shapes, parts: Collection[str]
) -> None:
    """Open the vocabularies (name in a backbone folder to file) and compare their sizes with the weights'."""
    clip = ClipTokens(paths["clip-vocab.json"], paths["clip-merges.txt"])
    clip.require_size(shapes["clip"]["text_model.embeddings.token_embedding.weight"][0])
    clip.require_end(config.clip.eos_token_id)
    if "optimus" in parts:
        bert = BertPieces(paths["bert-vocab.txt"])
        bert.require_size(shapes["optimus"]["bert.embeddings.word_embeddings.weight"][0])
        gpt2 = Gpt2Tokens(paths["gpt2-vocab.json"], paths["gpt2-merges.txt"])
        gpt2.require_size(shapes["optimus"]["gpt2.transformer.wte.weight"][0])


def verify(folder: Path) -> Manifest | None:
    """Hash every file of a backbone folder against its manifest, and compare keys and shapes with its configuration.

    Parameters
    ----------
    folder : pathlib.Path

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
        raise InputError(f"{folder}: no backbone is there (it has no config.json). Check the name.")
    manifest = read_manifest(folder)
    if manifest is not None:
        wrong = [
            name
            for name, record in track(list(manifest.files.items()), "checking hashes", unit="files")
            if not (folder / name).is_file()
            or (folder / name).stat().st_size != record.size
            or sha256_of(folder / name) != record.sha256
        ]
        if wrong:
            raise InputError(
                f"{folder}: not as its manifest says: {', '.join(wrong)} (missing or changed). Convert the weights "
                "again."
            )
    config = BackboneConfig.from_json(folder / "config.json")
    networks = empty_networks(config)
    parts = [part for part in PARTS if part != "optimus" or (folder / "optimus.safetensors").is_file()]
    for part in parts:
        path = folder / f"{part}.safetensors"
        check_weights(path, networks[part], look_into(path).shapes)
    check_vocabularies({path.name: path for path in folder.iterdir()}, config, expected_shapes(config), parts)
    return manifest
