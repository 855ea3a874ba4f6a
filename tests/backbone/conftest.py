"""A tiny backbone with random weights, written to disk and loaded as any other."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unibrain.backbone import BackboneConfig, VersatileDiffusion
from unibrain.backbone.coders import Optimus, make_autokl, make_clip
from unibrain.backbone.config import AutoKLConfig, ClipConfig, FlowsConfig, OptimusConfig, SamplingSettings
from unibrain.backbone.flows import FourFlows
from unibrain.backbone.folder import backbone_folder
from unibrain.backbone.loading import load_folder, write_backbone
from unibrain.backbone.tokenizers import BertPieces, ClipTokens, Gpt2Tokens

CAPTIONS = (
    "a red bus on the street",
    "a dog and a cat on the grass",
    "two birds above a house",
    "the red house near the sea",
    "a man riding a horse near a bus",
    "a cat sleeping on a red chair",
    "a horse on the grass near the sea",
    "two dogs above the street",
)
TEXT_TOKENS = 20
MAX_PIECES = 14


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def captions() -> tuple[str, ...]:
    return CAPTIONS


@pytest.fixture(scope="session")
def vocabulary_folder() -> Path:
    return backbone_folder("small")


@pytest.fixture(scope="session")
def bert(vocabulary_folder: Path) -> BertPieces:
    return BertPieces(vocabulary_folder / "bert-vocab.txt", MAX_PIECES)


@pytest.fixture(scope="session")
def gpt2(vocabulary_folder: Path) -> Gpt2Tokens:
    return Gpt2Tokens(vocabulary_folder / "gpt2-vocab.json", vocabulary_folder / "gpt2-merges.txt")


@pytest.fixture(scope="session")
def clip(vocabulary_folder: Path) -> ClipTokens:
    return ClipTokens(vocabulary_folder / "clip-vocab.json", vocabulary_folder / "clip-merges.txt", TEXT_TOKENS)


@pytest.fixture(scope="session")
def tiny_config(bert: BertPieces, gpt2: Gpt2Tokens, clip: ClipTokens) -> BackboneConfig:
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    return BackboneConfig(
        name="tiny",
        flows=FlowsConfig(4, 16, 32, (1,), (1,), (True,), heads=4, context_width=16, second_dim=2),
        autokl=AutoKLConfig(image_size=16, widths=(8, 16), res_blocks=1, norm_groups=4),
        optimus=OptimusConfig(
            latent_width=16,
            bert={"vocab_size": bert.size, "max_position_embeddings": 16, **layers},
            gpt2={"vocab_size": gpt2.size, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16},
            max_pieces=MAX_PIECES,
            max_length=14,
        ),
        clip=ClipConfig(
            text={"vocab_size": clip.size, "max_position_embeddings": TEXT_TOKENS, **layers},
            vision={"image_size": 16, "patch_size": 8, **layers},
            projection_width=16,
            eos_token_id=clip.eos,
            resize=24,
        ),
        image=SamplingSettings(image_weight=0.6, guidance_scale=2.0, steps=5),
        text=SamplingSettings(image_weight=0.9, guidance_scale=2.0, steps=5),
    )


@pytest.fixture(scope="session")
def tiny_folder(tiny_config: BackboneConfig, vocabulary_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(11)
    parts = {
        "flows": FourFlows(tiny_config.flows),
        "autokl": make_autokl(tiny_config.autokl),
        "optimus": Optimus(tiny_config.optimus),
        "clip": make_clip(tiny_config.clip),
    }
    # How much the libraries draw while they build differs between their versions.
    torch.manual_seed(12)
    # The library starts these networks with values so small that all sentences would read alike.
    with torch.no_grad():
        for part in ("optimus", "clip"):
            for name, parameter in parts[part].named_parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.3)
                elif name.endswith("bias"):
                    parameter.normal_(0, 0.1)
    folder = tmp_path_factory.mktemp("backbones") / "tiny"
    weights = {name: part.state_dict() for name, part in parts.items()}
    write_backbone(folder, tiny_config.to_json(), weights, vocabulary_folder, {"README.md": "# Tiny, random\n"})
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> VersatileDiffusion:
    return load_folder(tiny_folder, device="cpu")


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny backbone's folder, to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))
