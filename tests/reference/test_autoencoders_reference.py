"""AutoKL, Optimus and CLIP against what the published code computed."""

import torch

from unibrain.backbone.coders import decode_latents, encode_pictures, image_context, text_context


def test_autokl_both_ways(reference):
    golden = reference.load("golden_autokl")
    atol = reference.tolerance("autokl_optimus_clip")
    scale = reference.config["latent_scale_factor"]["image"]
    autokl = reference.autokl
    posterior = autokl.encode(golden["image01"] * 2 - 1).latent_dist
    torch.testing.assert_close(posterior.mean, golden["mean"], atol=atol, rtol=0)
    torch.testing.assert_close(posterior.logvar, golden["logvar"], atol=atol, rtol=0)
    mean = encode_pictures(autokl, golden["image01"], scale)
    torch.testing.assert_close(mean, scale * golden["mean"], atol=atol, rtol=0)
    torch.testing.assert_close(
        autokl.decode(golden["z_scaled"] / scale).sample, golden["decoder_raw"], atol=atol, rtol=0
    )
    torch.testing.assert_close(
        decode_latents(autokl, golden["z_scaled"], scale), golden["decoded01"], atol=atol, rtol=0
    )


def test_optimus_encoder(reference):
    golden = reference.load("golden_optimus")
    atol = reference.tolerance("autokl_optimus_clip")
    output = reference.optimus.bert(input_ids=golden["bert_ids"], attention_mask=golden["attention_mask"])
    torch.testing.assert_close(output.last_hidden_state, golden["bert_sequence"], atol=atol, rtol=0)
    torch.testing.assert_close(output.pooler_output, golden["bert_pooled"], atol=atol, rtol=0)
    mean, log_variance = reference.optimus.encode(golden["bert_ids"], golden["attention_mask"])
    torch.testing.assert_close(mean, golden["mu"], atol=atol, rtol=0)
    torch.testing.assert_close(log_variance, golden["logvar"], atol=atol, rtol=0)


def test_optimus_decoder(reference):
    golden = reference.load("golden_optimus")
    atol = reference.tolerance("autokl_optimus_clip")
    optimus = reference.optimus
    torch.testing.assert_close(optimus.to_memory(golden["z"]), golden["latent_memory"], atol=atol, rtol=0)
    torch.testing.assert_close(optimus.to_embedding(golden["z"]), golden["latent_emb"], atol=atol, rtol=0)
    logits, cache = optimus.logits(golden["z"], golden["dec_ids"])
    torch.testing.assert_close(logits, golden["dec_logits"], atol=atol, rtol=0)
    # One token at a time through the cache gives the same.
    cache, parts = None, []
    for token in golden["dec_ids"].split(1, dim=1):
        part, cache = optimus.logits(golden["z"], token, cache)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), golden["dec_logits"], atol=atol, rtol=0)


def _without_padding(ids):
    return [[token for token in row if token >= 0] for row in ids.tolist()]


def test_optimus_writes_greedily(reference):
    golden = reference.load("golden_optimus")
    assert reference.optimus.write(golden["z"]) == _without_padding(golden["greedy_ids"])


def test_clip_contexts(reference):
    golden = reference.load("golden_clip")
    atol = reference.tolerance("autokl_optimus_clip")
    clip = reference.clip
    text = clip.text_model(input_ids=golden["input_ids"])
    torch.testing.assert_close(text.last_hidden_state, golden["text_last_hidden"], atol=atol, rtol=0)
    torch.testing.assert_close(text.pooler_output, golden["text_pooled"], atol=atol, rtol=0)
    vision = clip.vision_model(pixel_values=golden["pixel_values"])
    torch.testing.assert_close(vision.last_hidden_state, golden["vision_last_hidden"], atol=atol, rtol=0)
    eos = reference.config["clip"]["text_config"]["eos_token_id"]
    torch.testing.assert_close(text_context(clip, golden["input_ids"], eos), golden["text_context"], atol=atol, rtol=0)
    torch.testing.assert_close(image_context(clip, golden["pixel_values"]), golden["image_context"], atol=atol, rtol=0)
