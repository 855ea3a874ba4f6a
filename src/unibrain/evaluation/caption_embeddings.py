"""Embeddings of captions by a sentence encoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import UnavailableError

SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_SENTENCE_TOKENS = 256
_AT_ONCE = 64


def sentence_embeddings(captions: Sequence[str], model: str = SENTENCE_MODEL) -> NDArray[np.float32]:
    """Embed captions with a sentence encoder of the Hugging Face hub: shape (n, width), rows of norm 1.

    The mean over the tokens of the last layer (Reimers and Gurevych 2019), of at most 256 tokens. The weights are read
    from the hub's cache, or from a folder; `UnavailableError` names the command that gets them.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    known: dict[str, Any] = {"local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, **known)
        network = AutoModel.from_pretrained(model, use_safetensors=True, **known).eval()
    except (OSError, ValueError) as error:
        raise UnavailableError(f"the sentence encoder is not here: run hf download {model}") from error
    # Captions of one length together: little is computed for padding.
    order = np.argsort([len(caption) for caption in captions], kind="stable")
    rows: NDArray[np.float32] = np.empty((len(captions), network.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), _AT_ONCE):
            places = order[start : start + _AT_ONCE]
            batch = tokenizer(
                [captions[place] for place in places],
                padding=True,
                truncation=True,
                max_length=_SENTENCE_TOKENS,
                return_tensors="pt",
            )
            there = batch["attention_mask"][..., None].to(torch.float32)
            means = (network(**batch).last_hidden_state * there).sum(1) / there.sum(1)
            rows[places] = torch.nn.functional.normalize(means, dim=1).numpy()
    return rows
