"""The hub's library, made quick and kept on the loopback interface."""

import os
from dataclasses import replace
from typing import Any

import pytest

from unibrain.weights import fetch
from unibrain.weights.sources import Source, official_sources


@pytest.fixture
def hub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import close_session, constants, file_download

    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    for name in proxies:
        monkeypatch.delenv(name)
    if proxies:
        close_session()
    # The library writes to disk in such pieces, and waits a second before it asks again.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)

    # Published hashes are those of the real files; what is served here stands for them.
    def unpinned(*arguments: Any, **options: Any) -> tuple[Source, ...]:
        return tuple(
            replace(source, files=tuple(replace(file, sha256=None) for file in source.files))
            for source in official_sources(*arguments, **options)
        )

    monkeypatch.setattr(fetch, "official_sources", unpinned)
