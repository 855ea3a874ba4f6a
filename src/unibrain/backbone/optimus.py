"""Optimus, the text autoencoder: BERT reads a sentence into one vector, GPT-2 writes a sentence from it.

Li et al., arXiv 2004.04092. The latent enters GPT-2 twice: added to every token's embedding, and as one past position
per layer whose key and value are the same vector, which is GPT-2's own cache with something in it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from unibrain.backbone.config import OptimusConfig
from unibrain.backbone.protocol import require_finite


class Optimus(nn.Module):
    """The text autoencoder.

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
        """Read sentences to the mean and log variance of their posterior, (B, latent_width) each.

        `ids` (B, pieces) are BERT's word pieces with its marks, padded with 0; `mask` is 0 for padding, else 1.
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
        """Predict the next token after each of `ids` (B, T): logits (B, T, vocabulary), and the cache including `ids`.

        `cache` holds what came before; without it, that is nothing but the latent z (B, latent_width).
        """
        cache = self.remember(z) if cache is None else cache
        # The memory fills position 0, so the begin token stands at 1: positions count on from the cache's length.
        past = cache.get_seq_length()
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)[None]
        embeddings = self.gpt2.transformer.wte(ids) + self.to_embedding(z)[:, None]
        output = self.gpt2(inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True)
        return output.logits, output.past_key_values

    @torch.no_grad()
    def write(self, z: Tensor) -> list[list[int]]:
        """Write the most probable sentence of each latent (B, latent_width): tokens from the begin to the end token.

        At ``config.max_length`` the last one is overwritten with the end token.
        """
        sentences = [[self.bos] for _ in range(len(z))]
        ids = torch.full((len(z), 1), self.bos, dtype=torch.int64, device=z.device)
        cache = None
        for _ in range(self.config.max_length - 1):
            logits, cache = self.logits(z, ids, cache)
            last = logits[:, -1].float()
            ids = last.argmax(-1, keepdim=True)
            # NaN counts as the largest.
            require_finite(last.gather(-1, ids).cpu().numpy())
            for sentence, token in zip(sentences, ids[:, 0].tolist(), strict=True):
                if sentence[-1] != self.eos:
                    sentence.append(token)
            if all(sentence[-1] == self.eos for sentence in sentences):
                break
        for sentence in sentences:
            if sentence[-1] != self.eos:
                sentence[-1] = self.eos
        return sentences
