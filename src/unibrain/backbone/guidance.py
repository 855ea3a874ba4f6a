"""Classifier-free guidance over a mix of contexts."""

from collections.abc import Callable, Mapping

from torch import Tensor

from unibrain.backbone.flows import ContextKind, FourFlows, PreparedContext

__all__ = ["guided_model", "shares_of"]


def shares_of(image_weight: float) -> dict[ContextKind, float]:
    """Share of each context that has one, for the share of the image context, 0 to 1."""
    shares: dict[ContextKind, float] = {"image": image_weight, "text": 1 - image_weight}
    return {kind: share for kind, share in shares.items() if share}


def guided_model(
    flows: FourFlows,
    conditional: Mapping[str, Tensor],
    unconditional: Mapping[str, Tensor | PreparedContext],
    image_weight: float,
    guidance_scale: float,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Wrap the network for the sampler: contexts are projected here, once, for all steps.

    Parameters
    ----------
    flows : FourFlows
    conditional : mapping
        ``"image"`` and ``"text"`` contexts, (B, tokens, width).
    unconditional : mapping
        The same, of B rows or one; or as `FourFlows.prepare` gives them, if they were projected before.
    image_weight : float
        Share of the image context, 0 to 1. A context without a share is not computed.
    guidance_scale : float
        ``e_u + scale * (e_c - e_u)``; the mixing happens inside the network, so guidance acts on the mixed prediction.
        At exactly 1 the unconditional half is left out.

    Returns
    -------
    callable
        Maps latents and timesteps to the guided prediction. The network's states have the dtype of the contexts;
        the prediction has that of the latents, so that a sampler can keep these in float32.
    """
    guided = guidance_scale != 1
    contexts: list[PreparedContext] = []
    for kind, share in shares_of(image_weight).items():
        prepared = flows.prepare(kind, conditional[kind], share)
        if guided:
            empty = unconditional[kind]
            prepared = prepared.beside(flows.prepare(kind, empty) if isinstance(empty, Tensor) else empty)
        contexts.append(prepared)
    dtype = next(iter(conditional.values())).dtype

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        # One timestep for all rows (an expanded tensor, as the sampler gives it) is embedded once.
        steps = timesteps[:1] if timesteps.stride(0) == 0 else timesteps
        output = flows(x.to(dtype), steps, contexts).to(x.dtype)
        if not guided:
            return output  # type: ignore[no-any-return]
        e_u, e_c = output.chunk(2)
        return e_u + guidance_scale * (e_c - e_u)  # type: ignore[no-any-return]

    return model
