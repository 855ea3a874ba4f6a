"""Classifier-free guidance over a mix of contexts."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from torch import Tensor

from unibrain.backbone.flows import ContextKind, FourFlows, PreparedContext

CONTEXT_KINDS: dict[str, ContextKind] = {"c_image": "image", "c_text": "text"}


def context_shares(image_weight: float, present: Collection[str]) -> dict[str, float]:
    """Share of each context that is read; an absent one gives its share to the others, all absent count as present."""
    shares = {"c_image": image_weight, "c_text": 1 - image_weight}
    given = [name for name in shares if name in present] or list(shares)
    if len(given) == 1:
        return {given[0]: 1.0}
    return {name: shares[name] for name in given if shares[name]}


def guided_model(
    flows: FourFlows,
    conditional: Mapping[str, Tensor],
    unconditional: Mapping[str, Tensor | PreparedContext],
    image_weight: float,
    guidance_scale: float,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Wrap the network for the sampler: contexts are projected here, once, for all steps.

    The prediction is ``e_u + scale * (e_c - e_u)``, and the mixing happens inside the network, so guidance acts on the
    mixed prediction. At a scale of exactly 1 the unconditional half is left out; without any conditional context, the
    conditional one. The network's states have the dtype of the contexts; the prediction has that of the latents.
    """
    guided = guidance_scale != 1 and bool(conditional)

    def prepare(source: Mapping[str, Tensor | PreparedContext], name: str) -> PreparedContext:
        rows = source[name]
        return rows if isinstance(rows, PreparedContext) else flows.prepare(CONTEXT_KINDS[name], rows)

    contexts: list[PreparedContext] = []
    for name, share in context_shares(image_weight, conditional).items():
        context = replace(prepare(conditional or unconditional, name), weight=share)
        contexts.append(context.beside(prepare(unconditional, name)) if guided else context)
    dtype = contexts[0].keys_values[0][0][0].dtype

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        # One timestep for all rows (an expanded tensor, as the sampler gives it) is embedded once.
        steps = timesteps[:1] if timesteps.stride(0) == 0 else timesteps
        output = flows(x.to(dtype), steps, contexts).to(x.dtype)
        if not guided:
            return output  # type: ignore[no-any-return]
        e_u, e_c = output.chunk(2)
        return e_u + guidance_scale * (e_c - e_u)  # type: ignore[no-any-return]

    return model
