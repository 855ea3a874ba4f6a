"""Classifier-free guidance over a mix of contexts."""

from collections.abc import Callable

import torch
from torch import Tensor

from unibrain.backbone.flows import FourFlows, PreparedContext

__all__ = ["guided_model"]


def guided_model(
    flows: FourFlows,
    conditional: dict[str, Tensor],
    unconditional: dict[str, Tensor],
    image_weight: float,
    guidance_scale: float,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Wrap the network for the sampler: contexts are projected here, once, for all steps.

    Parameters
    ----------
    flows : FourFlows
    conditional, unconditional : dict
        ``"image"`` and ``"text"`` contexts, (B, tokens, width); the unconditional ones may have B = 1.
    image_weight : float
        Share of the image context, 0 to 1. A context without a share is not computed.
    guidance_scale : float
        ``e_u + scale * (e_c - e_u)``; the mixing happens inside the network, so guidance acts on the mixed prediction.
        At exactly 1 the unconditional half is left out.

    Returns
    -------
    callable
        Maps latents and timesteps to the guided prediction.
    """
    shares = {"image": image_weight, "text": 1 - image_weight}
    guided = guidance_scale != 1
    contexts: list[PreparedContext] = []
    for kind in ("image", "text"):
        if not shares[kind]:
            continue
        prepared = flows.prepare(kind, conditional[kind], shares[kind])
        if guided:
            empty = flows.prepare(kind, unconditional[kind])
            size = (len(conditional[kind]), -1, -1, -1)
            pairs = tuple(
                (torch.cat([ku.expand(size), k]), torch.cat([vu.expand(size), v]))
                for (ku, vu), (k, v) in zip(empty.keys_values, prepared.keys_values, strict=True)
            )
            prepared = PreparedContext(kind, pairs, shares[kind])
        contexts.append(prepared)

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        if not guided:
            return flows(x, timesteps, contexts)  # type: ignore[no-any-return]
        e_u, e_c = flows(torch.cat([x, x]), torch.cat([timesteps, timesteps]), contexts).chunk(2)
        return e_u + guidance_scale * (e_c - e_u)  # type: ignore[no-any-return]

    return model
