"""A tiny model with the official number of blocks, and the hub's library on the loopback interface."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from on_disk import Files, Tiny, write_vocabularies

from unibrain.backbone.coders import Optimus, make_autokl, make_clip
from unibrain.backbone.config import (
    AutoKLConfig,
    BackboneConfig,
    ClipConfig,
    FlowsConfig,
    OptimusConfig,
    SamplingSettings,
)
from unibrain.backbone.flows import FourFlows
from unibrain.weights import conversion


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _networks_are_laid_out_once() -> Iterator[None]:
    """Every conversion asks for the same shapes; building them anew would be most of the time of these tests."""
    known: dict[str, conversion.Shapes] = {}
    build = conversion.expected_shapes

    def remembered(config: BackboneConfig) -> conversion.Shapes:
        key = config.to_json()
        if key not in known:
            known[key] = build(config)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "expected_shapes", remembered)
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("vocabularies")
    bert_size, gpt2_size, clip_size = write_vocabularies(folder)
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    settings = SamplingSettings(image_weight=0.6, guidance_scale=2.0, strength=0.5, steps=4)
    config = BackboneConfig(
        name="tiny",
        # Four levels of two blocks, as the official ones: the published table of old names fits.
        flows=FlowsConfig(text_width=16, model_channels=32, channel_mult=(1, 1, 2, 2), heads=4, context_width=16),
        autokl=AutoKLConfig(image_size=16, widths=(8, 16), res_blocks=1, norm_groups=4),
        optimus=OptimusConfig(
            latent_width=16,
            bert={"vocab_size": bert_size, "max_position_embeddings": 16, **layers},
            gpt2={"vocab_size": gpt2_size, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16},
            max_pieces=10,
            max_length=14,
        ),
        clip=ClipConfig(
            text={"vocab_size": clip_size, "max_position_embeddings": 12, **layers},
            vision={"image_size": 16, "patch_size": 8, **layers},
            projection_width=16,
            eos_token_id=clip_size - 1,
            resize=24,
        ),
        image=settings,
        text=settings,
    )
    torch.manual_seed(5)
    modules = {
        "flows": FourFlows(config.flows),
        "autokl": make_autokl(config.autokl),
        "optimus": Optimus(config.optimus),
        "clip": make_clip(config.clip),
    }
    with torch.no_grad():
        for module in modules.values():
            for parameter in module.parameters():
                # Norms and biases start as constants, and a mix-up of two would not be seen.
                parameter.add_(0.1 * torch.randn_like(parameter))
        modules["clip"].logit_scale.fill_(torch.tensor(100.0).log())
    return Tiny(config, modules, folder)


@pytest.fixture(scope="session")
def published(model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return model.write(tmp_path_factory.mktemp("published"))


@pytest.fixture
def hub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import close_session, constants

    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    for name in proxies:
        monkeypatch.delenv(name)
    if proxies:
        close_session()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The library waits between its tries.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def tiny_config(model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands convert the tiny model in the official one's place."""
    default: dict[str, Any] = conversion.convert.__kwdefaults__
    monkeypatch.setitem(default, "config", model.config)
