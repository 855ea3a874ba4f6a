"""Opening a backbone folder."""

from pathlib import Path

import torch

from unibrain.backbone.autokl import make_autokl
from unibrain.backbone.clip import make_clip
from unibrain.backbone.config import BackboneConfig
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.optimus import Optimus
from unibrain.backbone.storage import backbone_folder, fill, folder_fingerprint, read_part
from unibrain.backbone.tokenization import BertPieces, ClipTokens, Gpt2Tokens
from unibrain.backbone.versatile_diffusion import VersatileDiffusion
from unibrain.errors import InputError

__all__ = ["choose_device", "load_backbone"]


def load_backbone(name: str | Path = "small", device: str = "auto", batch_size: int = 64) -> VersatileDiffusion:
    """Load a backbone.

    Parameters
    ----------
    name : str or Path
        ``"small"`` for the one in the package, or a folder with ``config.json``, weights and vocabularies.
    device : str
        ``"auto"`` takes CUDA, then Apple's MPS, then the processor; or a name that PyTorch knows.
    batch_size : int
        Most pictures or captions in one call of a network.

    Returns
    -------
    VersatileDiffusion

    Raises
    ------
    InputError
        If the folder is not there or incomplete, weights or vocabularies are of another size than the configuration
        says, or there is no such device.

    Examples
    --------
    >>> load_backbone("small", device="cpu").encode_captions(["a dog on a beach"]).shape
    (1, 128)
    """
    folder = backbone_folder(name)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: no backbone there (config.json is missing), expected 'small' or the folder of a backbone: "
            "check the name"
        )
    chosen = choose_device(device)
    fingerprint = folder_fingerprint(folder)
    config = BackboneConfig.from_json(folder / "config.json")
    try:
        flows, autokl = FourFlows(config.flows), make_autokl(config.autokl)
        optimus, clip = Optimus(config.optimus), make_clip(config.clip)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        # The libraries' own refusals, for example of a width that the heads do not divide.
        raise InputError(
            f"{folder / 'config.json'}: no network can be built of these sizes ({error}): "
            "take the config.json written with the weights"
        ) from None
    for part, module in {"flows": flows, "autokl": autokl, "optimus": optimus, "clip": clip}.items():
        fill(module, read_part(folder, part), f"{folder / part}.safetensors")
    text_tokens = clip.config.text_config.max_position_embeddings
    bert_pieces = BertPieces(folder / "bert-vocab.txt", config.optimus.max_pieces)
    gpt2_tokens = Gpt2Tokens(folder / "gpt2-vocab.json", folder / "gpt2-merges.txt")
    clip_tokens = ClipTokens(folder / "clip-vocab.json", folder / "clip-merges.txt", text_tokens)
    # An embedding looked up under another vocabulary's number would be a wrong result that nobody notices.
    for file, found, expected in (
        ("bert-vocab.txt", bert_pieces.size, optimus.bert.config.vocab_size),
        ("gpt2-vocab.json", gpt2_tokens.size, optimus.gpt2.config.vocab_size),
        ("clip-vocab.json", clip_tokens.size, clip.config.text_config.vocab_size),
    ):
        if found != expected:
            raise InputError(
                f"{folder / file}: {found} tokens, marks included, expected the {expected} of config.json: "
                "take vocabularies and weights from the same place"
            )
    if clip_tokens.eos != config.clip.eos_token_id:
        raise InputError(
            f"{folder / 'clip-vocab.json'}: the end token is number {clip_tokens.eos}, expected "
            f"{config.clip.eos_token_id} as in config.json: take vocabularies and weights from the same place"
        )
    return VersatileDiffusion(
        config, flows, autokl, optimus, clip, bert_pieces, gpt2_tokens, clip_tokens, fingerprint, chosen, batch_size
    )


def choose_device(device: str) -> torch.device:
    """Turn a device's name into a device that is there.

    Parameters
    ----------
    device : str
        ``"auto"`` takes CUDA, then Apple's MPS, then the processor; or a name that PyTorch knows.

    Returns
    -------
    torch.device

    Raises
    ------
    InputError
        If it is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device} cannot be used ({str(error).splitlines()[0]}), expected auto, cpu, cuda or mps: "
            "choose one that this machine has"
        ) from None
    return chosen
