"""`unibrain ablate`: what each latent gives, by leaving it out and by leaving it alone, as in the paper's tables."""

from unibrain.experiments.bench import Bench
from unibrain.experiments.findings import Findings, cells_of, columns_of
from unibrain.experiments.page import interval_figure

FULL = "full"
_SYMBOLS = {"z": "Z", "c_image": "C_I", "c_text": "C_T"}
_SHOWN = 8


def ablation_settings(captions: bool) -> dict[str, frozenset[str]]:
    """Name of each setting to the latents that take part in it; `FULL` is first."""
    parts = {"z": {"z_image", "z_text"}, "c_image": {"c_image"}, "c_text": {"c_text"}}
    if not captions:
        parts = {"z": {"z_image"}, "c_image": {"c_image"}}
    whole = frozenset().union(*parts.values())
    settings = {FULL: whole}
    settings |= {f"without {_SYMBOLS[name]}": whole - part for name, part in parts.items()}
    settings |= {f"only {_SYMBOLS[name]}": frozenset(part) for name, part in parts.items()}
    found: dict[str, frozenset[str]] = {}
    for name, use in settings.items():
        if use not in found.values():  # of two parts, leaving one out is leaving the other alone
            found[name] = use
    return found


def ablate(bench: Bench) -> Findings:
    """Decode with and without each latent, and score each setting against the full one.

    Without Z, a flow starts from noise; Z alone is decoded without diffusion; a context that is left out gives its
    share to the other, as in the paper.

    Parameters
    ----------
    bench : Bench

    Returns
    -------
    Findings
        A row for each setting, with paired differences to ``"full"``, which is what the run decoded.

    Raises
    ------
    InputError
        If it is expected to take more than the bench's budget.
    """
    settings = ablation_settings(bench.stimuli.has_captions)
    diffused = [name for name, use in settings.items() if name != FULL and any(latent[0] == "c" for latent in use)]
    bench.announce(len(diffused) * len(bench.ids), "ablate")
    predicted = bench.predicted
    others = bench.decode_all({name: (predicted, {"use": use}) for name, use in settings.items() if name != FULL})
    decoded = {name: bench.decoded() if name == FULL else others[name] for name in settings}
    scores = {name: bench.score(items) for name, items in decoded.items()}
    cells = [cell for name, found in scores.items() for cell in cells_of(name, found, (FULL, scores[FULL]))]
    findings = Findings(
        "ablate",
        "What each latent gives",
        "Pictures and captions are decoded without one of the predicted latents, and from one alone. Z (the image or "
        "text latent) is where diffusion starts, C_I (CLIP-Image tokens) and C_T (CLIP-Text tokens) guide it.",
        columns_of(scores[FULL]),
        tuple(cells),
        bench.subject.simulated,
        bench.about(),
        strips=bench.strips(decoded, _SHOWN),
        published=bench.published("unibrain-ablation", "unibrain-captions"),
    )
    return findings.drawn({"Settings beside the full one": interval_figure(findings, FULL)})
