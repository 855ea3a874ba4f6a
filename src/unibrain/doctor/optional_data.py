"""Data and programs that some results need and others do not."""

import shutil
from pathlib import Path

from unibrain.doctor.diagnosis import Finding, Section

__all__ = ["optional_data"]

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "firefox")


def _wordnet() -> Finding:
    from unibrain.evaluation.synonym_source import WORDNET_HINT
    from unibrain.evaluation.wordnet import DEBIAN_FOLDER

    if (DEBIAN_FOLDER / "data.noun").is_file():
        return Finding("WordNet", "ok", f"{DEBIAN_FOLDER}")
    # Only looked for: loading it takes seconds.
    from nltk.data import find

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            return Finding("WordNet", "ok", str(find(name)))
        except LookupError:
            continue
    remedy = f"the scene world's words have a table of their own. {WORDNET_HINT}"
    return Finding("WordNet", "note", "not installed", remedy)


def _network() -> Finding:
    from unibrain.evaluation.features import INSTALL_HINT, network_is_installed

    if network_is_installed():
        return Finding("EfficientNet-lite0", "ok", "installed, with its weights")
    return Finding(
        "EfficientNet-lite0", "note", "not installed: two-way identification of pictures is left out", INSTALL_HINT
    )


def _browser() -> Finding:
    found = next((path for path in map(shutil.which, _BROWSERS) if path), None)
    if found is not None:
        return Finding("browser", "ok", f"{Path(found)} (to look at report.html)")
    return Finding("browser", "ok", "none found here; report.html opens in any browser, on any machine")


def optional_data() -> Section:
    """Look for WordNet, EfficientNet-lite0 and a browser."""
    return Section("Optional", (_wordnet(), _network(), _browser()))
