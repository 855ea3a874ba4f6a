"""How penalties were chosen and which bands carry which latent, for the page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unibrain.latents.latents import LATENT_TITLES
from unibrain.report.pictures import svg_uri

if TYPE_CHECKING:
    from unibrain.regression.alpha_choice import AlphaChoice
    from unibrain.regression.banded import BandChoice

__all__ = ["band_table", "penalty_chart"]


def penalty_chart(choices: Mapping[str, "AlphaChoice"]) -> dict[str, Any] | None:
    """The chart of the choice of alpha, and what it says, in words.

    Parameters
    ----------
    choices : mapping of str to AlphaChoice
        Latent to choice.

    Returns
    -------
    dict or None
        ``chart`` (data URI) and ``rows`` of (latent, its title, what the choice looked at, warning or empty); None if
        nothing was chosen.
    """
    if not choices:
        return None
    from unibrain.regression.alpha_plot import alpha_figure, edge_warning

    rows = [
        (name, LATENT_TITLES.get(name, name), choice.describe(), edge_warning(choice))
        for name, choice in choices.items()
    ]
    return {"chart": svg_uri(alpha_figure(choices)), "rows": rows}


def band_table(choice: "BandChoice | None") -> dict[str, Any] | None:
    """What each band carries, as a table: bands down, latents across.

    Parameters
    ----------
    choice : BandChoice or None

    Returns
    -------
    dict or None
        ``latents``; ``rows`` of (band, list of (share of the explained variance, penalty)); ``total`` and ``plain``,
        the explained variance with and without bands; ``largest`` share; ``candidates``, how many weights were tried.
    """
    if choice is None:
        return None
    shares, penalties = choice.shares.tolist(), choice.penalties.tolist()
    latents = range(len(choice.latents))
    rows = [
        (band, [(shares[latent][number], penalties[latent][number]) for latent in latents])
        for number, band in enumerate(choice.bands)
    ]
    return {
        "latents": choice.latents,
        "rows": rows,
        "total": choice.best_r2.tolist(),
        "plain": choice.plain_r2.tolist(),
        "largest": max(0.001, *(share for row in shares for share in row)),
        "candidates": len(choice.candidates),
    }
