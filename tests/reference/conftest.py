"""The reference folder: random-weight models with what the published code computes from them."""

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unibrain.backbone.coders import Optimus, make_autokl, make_clip
from unibrain.backbone.config import AutoKLConfig, ClipConfig, FlowsConfig, OptimusConfig, ScheduleConfig
from unibrain.backbone.flows import FourFlows
from unibrain.weights.layouts import autokl_name, optimus_name


@dataclass(frozen=True)
class Reference:
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def load(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name}.safetensors")

    def weights(self, name: str, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value.float() for key, value in self.load(name).items()}

    def tolerance(self, name: str) -> float:
        """The first number in the stated tolerance, e.g. 'atol 1e-4'."""
        found = re.search(r"atol\s+([0-9.e-]+)", self.config["suggested_tolerance"][name])
        assert found is not None
        return float(found[1])

    def close(self, found: Any, expected: Any, tolerance: str = "autokl_optimus_clip") -> None:
        """Compare what was found with what the published code gave."""
        torch.testing.assert_close(found, expected, atol=self.tolerance(tolerance), rtol=0)

    @cached_property
    def schedule(self) -> ScheduleConfig:
        entry = self.config["schedule"]
        return ScheduleConfig(entry["num_timesteps"], entry["beta_linear_start"], entry["beta_linear_end"])

    @cached_property
    def flows(self) -> FourFlows:
        image, text = self.config["diffuser"]["image"], self.config["diffuser"]["text"]
        attention = tuple(2**level in image["attention_resolutions"] for level in range(len(image["channel_mult"])))
        assert attention == tuple(text["with_attn"])
        assert image["channel_mult"] == text["channel_mult"]
        assert image["num_res_blocks"] == text["num_noattn_blocks"]
        (second_dim,) = set(text["second_dim"])
        flows = FourFlows(
            FlowsConfig(
                image_channels=image["in_channels"],
                text_width=text["input_channels"],
                model_channels=image["model_channels"],
                channel_mult=tuple(image["channel_mult"]),
                res_blocks=tuple(image["num_res_blocks"]),
                attention=attention,
                heads=image["num_heads"],
                context_width=image["context_dim"],
                second_dim=second_dim,
            )
        )
        flows.load_state_dict(self.weights("weights_diffuser", "diffuser."), strict=True)
        return flows.eval()

    @cached_property
    def autokl(self) -> Any:
        entry = self.config["autokl"]
        assert not entry["attn_resolutions"]
        config = AutoKLConfig(
            image_size=entry["resolution"],
            widths=tuple(entry["ch"] * multiple for multiple in entry["ch_mult"]),
            res_blocks=entry["num_res_blocks"],
            latent_channels=entry["embed_dim"],
            scale_factor=self.config["latent_scale_factor"]["image"],
        )
        autokl = make_autokl(config)
        weights, levels = self.weights("weights_autokl", "vae.image."), len(config.widths)
        own = autokl.state_dict()
        autokl.load_state_dict({key: weights[autokl_name(key, levels)].reshape(own[key].shape) for key in own})
        return autokl.eval()

    @cached_property
    def optimus(self) -> Optimus:
        entry = self.config["optimus"]
        known = {"pruned_heads", "torchscript", "output_attentions", "output_hidden_states"}
        bert, gpt2 = ({k: v for k, v in entry[part].items() if k not in known} for part in ("bert", "gpt2"))
        optimus = Optimus(OptimusConfig(entry["latent_size"], bert, gpt2))
        weights = self.weights("weights_optimus", "vae.text.")
        optimus.load_state_dict({key: weights[optimus_name(key)] for key in optimus.state_dict()})
        return optimus.eval()

    @cached_property
    def clip(self) -> Any:
        entry = self.config["clip"]
        text = entry["text_config"]
        clip = make_clip(ClipConfig(text, entry["vision_config"], entry["projection_dim"], text["eos_token_id"]))
        clip.load_state_dict(self.weights("weights_clip", ""), strict=True)
        return clip.eval()


@pytest.fixture(scope="session")
def reference() -> Reference:
    folder = Path(os.environ.get("UNIBRAIN_REFERENCE", Path(__file__).parent / "data"))
    assert (folder / "config.json").is_file(), f"UNIBRAIN_REFERENCE: no config.json in {folder}"
    return Reference(folder)


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield
