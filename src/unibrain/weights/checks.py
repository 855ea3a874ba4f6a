"""What a complete backbone of a configuration holds, and whether a folder still holds it."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from unibrain.backbone.autokl import make_autokl
from unibrain.backbone.clip import make_clip
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.optimus import Optimus
from unibrain.backbone.storage import PARTS, open_part
from unibrain.backbone.tokenization import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.errors import InputError
from unibrain.weights.manifest import Manifest, read_manifest
from unibrain.workspace.fingerprints import sha256_of
from unibrain.workspace.progress import track

TIED = "gpt2.lm_head.weight"
"""GPT-2's output layer is its embedding, `gpt2.transformer.wte.weight`; it is written once, as that."""

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Part to key to shape."""


def expected_shapes(config: BackboneConfig) -> Shapes:
    """Build the networks on the meta device, where they take no memory, and read off their shapes."""
    try:
        with torch.device("meta"):
            modules = {
                "flows": FourFlows(config.flows),
                "autokl": make_autokl(config.autokl),
                "optimus": Optimus(config.optimus),
                "clip": make_clip(config.clip),
            }
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(
            f"Configuration {config.name!r}: no network can be built of these sizes ({error}). Take the config.json "
            "that belongs to the weights."
        ) from None
    return {
        part: {key: tuple(value.shape) for key, value in module.state_dict().items() if key != TIED}
        for part, module in modules.items()
    }


def check_vocabularies(
    paths: Mapping[str, Path], config: BackboneConfig, shapes: Shapes, parts: Collection[str]
) -> None:
    """Open the vocabularies (name in a backbone folder to file) and compare their sizes with the weights'."""
    clip = ClipTokens(paths["clip-vocab.json"], paths["clip-merges.txt"])
    sizes = {"clip-vocab.json": (clip.size, shapes["clip"]["text_model.embeddings.token_embedding.weight"])}
    if "optimus" in parts:
        bert, gpt2 = BertPieces(paths["bert-vocab.txt"]), Gpt2Tokens(paths["gpt2-vocab.json"], paths["gpt2-merges.txt"])
        sizes["bert-vocab.txt"] = bert.size, shapes["optimus"]["bert.embeddings.word_embeddings.weight"]
        sizes["gpt2-vocab.json"] = gpt2.size, shapes["optimus"]["gpt2.transformer.wte.weight"]
    for name, (found, embedding) in sizes.items():
        if found != embedding[0]:
            raise InputError(
                f"{paths[name]}: {found:,} tokens, marks included, but the weights have {embedding[0]:,}. Take "
                "vocabularies and weights from the same place."
            )
    if clip.eos != config.clip.eos_token_id:
        raise InputError(
            f"{paths['clip-vocab.json']}: the end token is number {clip.eos}, but {config.clip.eos_token_id} for the "
            "weights. Take CLIP's vocabulary and weights from the same place."
        )


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
    shapes = expected_shapes(config)
    parts = [part for part in PARTS if part != "optimus" or (folder / "optimus.safetensors").is_file()]
    for part in parts:
        with open_part(folder, part) as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys() if key != TIED}  # noqa: SIM118
        if found != shapes[part]:
            key = min(key for key in {*found, *shapes[part]} if found.get(key) != shapes[part].get(key))
            raise InputError(
                f"{folder / part}.safetensors: {key} is {found.get(key, 'missing')}, but "
                f"{shapes[part].get(key, 'unknown')} for config.json. Take weights and config.json from the same place."
            )
    check_vocabularies({path.name: path for path in folder.iterdir()}, config, shapes, parts)
    return manifest
