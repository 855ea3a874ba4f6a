"""
The mixing rate
===============

Inside every attention layer of the diffusion model, the results for two contexts are mixed. ``image_weight`` is the
share of the CLIP-Image tokens; the CLIP-Text tokens have the rest. The paper takes 0.6 for pictures and 0.9 for
captions.

**No human was scanned for this page.**
"""

# %%
# The run of the first example. Where it is there already, this takes a moment.
import numpy as np
from matplotlib import pyplot

import unibrain
from unibrain.experiments import open_bench, sweep

run = unibrain.RunFolder("gallery-run")
results = unibrain.run_all(run, unibrain.demo_settings(images=12, training_images=400))

# %%
# The same predicted latents, decoded with other weights. The noise of a scan belongs to its image and the seed, so the
# weight is all that differs.
weights = [0.0, 0.5, 1.0]
backbone = unibrain.load_backbone("small")
predicted = unibrain.load_latents("gallery-run/predicted").rows(slice(0, 5))
decoded = {weight: unibrain.reconstruct(backbone, predicted, image_weight=weight) for weight in weights}

figure, axes = pyplot.subplots(len(weights), predicted.n, figsize=(8, 5), layout="constrained")
for panels, (weight, items) in zip(axes, decoded.items(), strict=True):
    for panel, picture in zip(panels, items.pictures, strict=True):
        panel.imshow(picture)
        panel.set_xticks([])
        panel.set_yticks([])
    panels[0].set_ylabel(f"image_weight {weight:g}")

# %%
# The captions of the first scan.
for weight, items in decoded.items():
    print(f"{weight:g}: {items.captions[0]}")

# %%
# How much a picture changes from one end to the other, in grey levels.
ends = [decoded[weight].pictures.astype(float) for weight in (weights[0], weights[-1])]
print(f"mean difference between 0 and 1: {np.abs(ends[0] - ends[1]).mean():.1f} of 255")

# %%
# Which weight should a run take? Never the one that looks best on test images. `sweep` takes images out of training,
# fits a decoder to all others, and recommends a setting only if it is clearly better on the images that were left out.
# On the command line: ``unibrain sweep gallery-run --image-weight 0,0.5,1``.
with open_bench(run) as bench:
    found = sweep(bench, {"image_weight": weights}, images=6)
found
