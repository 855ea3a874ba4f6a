"""The order of the examples, from the first thing to try to the last."""

ORDER = (
    "plot_first_decode.py",
    "plot_own_scans.py",
    "plot_reading_nsd.py",
    "plot_official_weights.py",
    "plot_ablation.py",
    "plot_painted_region.py",
    "plot_mixing_sweep.py",
    "plot_new_metric.py",
    "plot_fifth_latent.py",
)


def key(name: str) -> int:
    """Place of an example; one that is not listed is an error."""
    return ORDER.index(name)
