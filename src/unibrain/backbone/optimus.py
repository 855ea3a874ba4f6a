"""Optimus, the text autoencoder: BERT reads a sentence into one vector, GPT-2 writes a sentence from it.

Li et al., arXiv 2004.04092. The latent enters GPT-2 twice: added to every token's embedding, and as one past position
per layer whose key and value are the same vector, which is GPT-2's own cache with something in it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from unibrain.backbone.config import OptimusConfig

__all__ = ["Optimus", "filter_logits", "from_published_keys"]


class Optimus(nn.Module):
    """The text autoencoder.

    Parameters
    ----------
    config : OptimusConfig

    Notes
    -----
    The last three tokens of GPT-2's vocabulary are padding, begin and end of sentence, in that order.
    """

    def __init__(self, config: OptimusConfig) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

        self.config = config
        bert = BertConfig(**config.bert)
        gpt2 = GPT2Config(**config.gpt2)
        self.bert = BertModel(bert)
        self.to_posterior = nn.Linear(bert.hidden_size, 2 * config.latent_width, bias=False)
        self.gpt2 = GPT2LMHeadModel(gpt2)
        self.to_memory = nn.Linear(config.latent_width, gpt2.n_layer * gpt2.n_embd, bias=False)
        self.to_embedding = nn.Linear(config.latent_width, gpt2.n_embd, bias=False)
        self.pad, self.bos, self.eos = range(gpt2.vocab_size - 3, gpt2.vocab_size)

    def encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read sentences.

        Parameters
        ----------
        ids : Tensor of shape (B, pieces), int64
            BERT's word pieces with its begin and end marks, padded with 0.
        mask : Tensor of shape (B, pieces)
            1 for pieces, 0 for padding.

        Returns
        -------
        mean, log_variance : Tensor of shape (B, latent_width)
        """
        pooled = self.bert(input_ids=ids, attention_mask=mask).pooler_output
        mean, log_variance = self.to_posterior(pooled).chunk(2, dim=-1)
        return mean, log_variance

    def remember(self, z: Tensor) -> Any:
        """Put the latents (B, latent_width) into a fresh cache as one past position per layer."""
        from transformers import DynamicCache

        heads = self.gpt2.config.n_head
        cache = DynamicCache()
        for layer, vector in enumerate(self.to_memory(z).chunk(self.gpt2.config.n_layer, dim=-1)):
            # (B, heads, 1 position, head width), and the very same vector as key and as value
            past = vector.unflatten(-1, (heads, -1))[:, :, None]
            cache.update(past, past, layer)
        return cache

    def logits(self, z: Tensor, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Predict the next token at every position.

        Parameters
        ----------
        z : Tensor of shape (B, latent_width)
        ids : Tensor of shape (B, T), int64
            Tokens, the first of a sentence being the begin token.
        cache : transformers cache, optional
            What came before `ids`; by default nothing but the latent.

        Returns
        -------
        logits : Tensor of shape (B, T, vocabulary)
        cache : transformers cache
            Including `ids`.
        """
        cache = self.remember(z) if cache is None else cache
        # The memory fills position 0, so the begin token stands at 1: positions count on from the cache's length.
        past = cache.get_seq_length()
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)[None]
        embeddings = self.gpt2.transformer.wte(ids) + self.to_embedding(z)[:, None]
        output = self.gpt2(inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True)
        return output.logits, output.past_key_values

    @torch.no_grad()
    def write(
        self,
        z: Tensor,
        generators: list[torch.Generator] | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> list[list[int]]:
        """Write one sentence per latent.

        Parameters
        ----------
        z : Tensor of shape (B, latent_width)
        generators : list of torch.Generator, optional
            One per latent: draw tokens. Left out: take the most probable token each time.
        temperature, top_k, top_p
            See `filter_logits`; only used when drawing.

        Returns
        -------
        list of list of int
            Tokens from the begin to the end token. At ``config.max_length`` the last one is overwritten with the end
            token.
        """
        sentences = [[self.bos] for _ in range(len(z))]
        ids = torch.full((len(z), 1), self.bos, dtype=torch.int64, device=z.device)
        cache = None
        for _ in range(self.config.max_length - 1):
            logits, cache = self.logits(z, ids, cache)
            last = logits[:, -1].float()
            if generators is None:
                ids = last.argmax(-1, keepdim=True)
            else:
                kept = filter_logits(last / temperature, top_k, top_p).softmax(-1).cpu()
                ids = torch.stack(
                    [torch.multinomial(row, 1, generator=g) for row, g in zip(kept, generators, strict=True)]
                ).to(z.device)
            for sentence, token in zip(sentences, ids[:, 0].tolist(), strict=True):
                if sentence[-1] != self.eos:
                    sentence.append(token)
            if all(sentence[-1] == self.eos for sentence in sentences):
                break
        for sentence in sentences:
            if sentence[-1] != self.eos:
                sentence[-1] = self.eos
        return sentences


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 0.0) -> Tensor:
    """Rule out improbable tokens.

    Parameters
    ----------
    logits : Tensor of shape (..., vocabulary)
    top_k : int
        Keep the k most probable; 0 keeps all.
    top_p : float
        Keep the most probable tokens until their probabilities exceed `top_p`, the one that crosses it included; 0
        keeps all. At 1.0 the filter still runs: tokens whose predecessors sum to more than 1 by rounding are ruled out.

    Returns
    -------
    Tensor of shape (..., vocabulary)
        Minus infinity where a token is ruled out.
    """
    if top_k > 0:
        smallest = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    if top_p > 0:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1).roll(1, -1)
        before[..., 0] = 0
        out = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before > top_p)
        logits = logits.masked_fill(out, float("-inf"))
    return logits


def from_published_keys(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the published Optimus' keys to those of `Optimus`.

    Parameters
    ----------
    weights : dict of str to Tensor
        Keys ``encoder.*`` (BERT and the posterior's ``linear``) and ``decoder.*`` (GPT-2, ``linear``, ``linear_emb``).

    Returns
    -------
    dict of str to Tensor
        Without the stored causal masks, which are no weights.
    """
    special = {
        "encoder.linear.weight": "to_posterior.weight",
        "decoder.transformer.linear.weight": "to_memory.weight",
        "decoder.transformer.linear_emb.weight": "to_embedding.weight",
    }
    renamed = {}
    for key, value in weights.items():
        if key in special:
            renamed[special[key]] = value
        elif not key.endswith((".attn.bias", ".attn.masked_bias", "position_ids")):
            side, rest = key.split(".", 1)
            renamed[("bert." if side == "encoder" else "gpt2.") + rest] = value
    return renamed
