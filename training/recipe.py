"""Sizes of the small backbone that comes with the package, and how its parts are trained."""

from dataclasses import replace
from typing import Any

from training.loop import Recipe
from unibrain.backbone.config import (
    AutoKLConfig,
    BackboneConfig,
    ClipConfig,
    FlowsConfig,
    OptimusConfig,
    SamplingSettings,
    ScheduleConfig,
)

SCENE_SEED, TRAINING_SCENES = 20, 60_000
TEXT_TOKENS, MAX_PIECES = 20, 24
LATENT_CHANNELS = 24

_AUTOKL = Recipe(
    steps=12_000, batch_size=16, learning_rate=1e-3, matrix_rate=2e-3, cooldown=4000, average=0.998, weight_decay=0.0
)
RECIPES = {
    "autokl": _AUTOKL,
    "decoder": replace(_AUTOKL, steps=3000, learning_rate=2.5e-4, matrix_rate=5e-4, cooldown=2800),
    "clip": Recipe(steps=6000, batch_size=128, learning_rate=8e-4, cooldown=3000, average=0.995, weight_decay=0.02),
    "optimus": Recipe(steps=8000, batch_size=128, learning_rate=1.5e-3, cooldown=3000, average=0.998),
    "writer": Recipe(steps=3000, batch_size=128, learning_rate=1e-3, warmup=50, cooldown=2000, average=0.99),
    "flows": Recipe(
        steps=6000,
        batch_size=32,
        learning_rate=1e-3,
        matrix_rate=2.5e-3,
        warmup=100,
        cooldown=5200,
        average=0.997,
        parts=2,
    ),
}


def small_config(bert_vocabulary: int, gpt2_vocabulary: int, clip_vocabulary: int) -> BackboneConfig:
    """The small backbone's configuration; the sizes of the vocabularies follow from the scenes' captions.

    The scale of the image latents is measured later, when the image autoencoder is trained.
    """
    eos = clip_vocabulary - 1
    quiet: dict[str, Any] = {"attention_dropout": 0.0}
    return BackboneConfig(
        name="small",
        flows=FlowsConfig(
            image_channels=LATENT_CHANNELS,
            text_width=128,
            model_channels=128,
            channel_mult=(1,),
            res_blocks=(2,),
            attention=(True,),
            heads=4,
            context_width=128,
            second_dim=3,
        ),
        schedule=ScheduleConfig(prediction="v_prediction", beta_start=3e-4, beta_end=0.009),
        autokl=AutoKLConfig(
            image_size=64,
            widths=(16, 32, 64, 96),
            res_blocks=1,
            latent_channels=LATENT_CHANNELS,
            scale_factor=1.0,
            norm_groups=8,
        ),
        optimus=OptimusConfig(
            latent_width=128,
            bert={
                "vocab_size": bert_vocabulary,
                "hidden_size": 128,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "intermediate_size": 384,
                "max_position_embeddings": 32,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            gpt2={
                "vocab_size": gpt2_vocabulary,
                "n_embd": 128,
                "n_layer": 3,
                "n_head": 4,
                "n_inner": 384,
                "n_positions": 32,
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
                "bos_token_id": gpt2_vocabulary - 2,
                "eos_token_id": gpt2_vocabulary - 1,
            },
            max_pieces=MAX_PIECES,
            max_length=28,
        ),
        clip=ClipConfig(
            text={
                **quiet,
                "vocab_size": clip_vocabulary,
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "max_position_embeddings": TEXT_TOKENS,
                "bos_token_id": eos - 1,
            },
            vision={
                **quiet,
                "hidden_size": 192,
                "intermediate_size": 576,
                "num_hidden_layers": 5,
                "num_attention_heads": 6,
                "image_size": 64,
                "patch_size": 16,
            },
            projection_width=128,
            eos_token_id=eos,
            resize=64,
        ),
        image=SamplingSettings(
            image_weight=0.6, guidance_scale=3.0, strength=0.75, steps=12, eta=1.0, guidance_end=0.25
        ),
        text=SamplingSettings(image_weight=0.9, guidance_scale=3.0, strength=0.75, steps=14, eta=1.0),
    )
