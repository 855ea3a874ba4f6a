"""AutoKL, Optimus and CLIP against what the published code computed."""

from dataclasses import replace

import torch

from unibrain.backbone.coders import decode_latents, encode_pictures, image_context, text_context


def test_autokl_both_ways(reference):
    golden, autokl = reference.load("golden_autokl"), reference.autokl
    scale = reference.config["latent_scale_factor"]["image"]
    posterior = autokl.encode(golden["image01"] * 2 - 1).latent_dist
    reference.close(posterior.mean, golden["mean"])
    reference.close(posterior.logvar, golden["logvar"])
    reference.close(encode_pictures(autokl, golden["image01"], scale), scale * golden["mean"])
    reference.close(autokl.decode(golden["z_scaled"] / scale).sample, golden["decoder_raw"])
    reference.close(decode_latents(autokl, golden["z_scaled"], scale), golden["decoded01"])


def test_optimus_encoder(reference):
    golden = reference.load("golden_optimus")
    output = reference.optimus.bert(input_ids=golden["bert_ids"], attention_mask=golden["attention_mask"])
    reference.close(output.last_hidden_state, golden["bert_sequence"])
    reference.close(output.pooler_output, golden["bert_pooled"])
    mean, log_variance = reference.optimus.encode(golden["bert_ids"], golden["attention_mask"])
    reference.close(mean, golden["mu"])
    reference.close(log_variance, golden["logvar"])


def test_optimus_decoder(reference):
    golden, optimus = reference.load("golden_optimus"), reference.optimus
    reference.close(optimus.to_memory(golden["z"]), golden["latent_memory"])
    reference.close(optimus.to_embedding(golden["z"]), golden["latent_emb"])
    logits, cache = optimus.logits(golden["z"], golden["dec_ids"])
    reference.close(logits, golden["dec_logits"])
    # One token at a time through the cache gives the same.
    cache, parts = None, []
    for token in golden["dec_ids"].split(1, dim=1):
        part, cache = optimus.logits(golden["z"], token, cache)
        parts.append(part)
    reference.close(torch.cat(parts, 1), golden["dec_logits"])
    greedy = [[token for token in row if token >= 0] for row in golden["greedy_ids"].tolist()]
    assert optimus.write(golden["z"]) == greedy


def test_what_is_unrepeated_is_written_once(reference, monkeypatch):
    optimus, z = reference.optimus, reference.load("golden_optimus")["z"]
    plain = optimus.write(z)
    marks = {optimus.pad, optimus.bos, optimus.eos}
    often = {token for row in plain for token in set(row) - marks if row.count(token) > 1}
    assert often, "there is something to leave out"
    monkeypatch.setattr(optimus, "config", replace(optimus.config, unrepeated=tuple(often)))
    for free, held in zip(plain, optimus.write(z), strict=True):
        assert all(held.count(token) <= 1 for token in often)
        same = next((place for place in range(len(free)) if free[place] in free[:place] and free[place] in often), None)
        # Up to the first word that would come again they agree, and it was the next best word that took its place.
        assert held[:same] == free[:same]
        if same is not None:
            logits = optimus.logits(z[[plain.index(free)]], torch.tensor([held[:same]]))[0][0, -1]
            assert held[same] == next(
                token for token in logits.argsort(descending=True).tolist() if token not in often & set(held[:same])
            )


def test_clip_contexts(reference):
    golden, clip = reference.load("golden_clip"), reference.clip
    text = clip.text_model(input_ids=golden["input_ids"])
    reference.close(text.last_hidden_state, golden["text_last_hidden"])
    reference.close(text.pooler_output, golden["text_pooled"])
    vision = clip.vision_model(pixel_values=golden["pixel_values"])
    reference.close(vision.last_hidden_state, golden["vision_last_hidden"])
    eos = reference.config["clip"]["text_config"]["eos_token_id"]
    reference.close(text_context(clip, golden["input_ids"], eos), golden["text_context"])
    reference.close(image_context(clip, golden["pixel_values"]), golden["image_context"])
