"""
What does each latent give?
===========================

Pictures and captions are decoded without one of the predicted latents, and from one alone: the ablation of the paper.

**No human was scanned for this page**, and four images prove nothing; they show how it is done.
"""

# %%
# The run of the first example. Where it is there already, this takes a moment.
import unibrain
from unibrain.experiments import ablate, open_bench

run = unibrain.RunFolder("gallery-run")
results = unibrain.run_all(run, unibrain.demo_settings(images=12, training_images=400))

# %%
# An experiment is a function over an open run. Nothing is decoded twice: run it again, and it reads what it kept. On
# the command line it is ``unibrain ablate gallery-run --images 4``, which writes a page.
with open_bench(run, images=4) as bench:
    found = ablate(bench)

# %%
# Z is where diffusion starts, C_I and C_T guide it. A star marks a difference to the full setting whose interval
# leaves out zero.
found

# %%
# One latent alone is also an option of `unibrain.reconstruct`. Without any context there is no diffusion: this is the
# layout that the image latent holds.
predicted = unibrain.load_latents("gallery-run/predicted").rows(slice(0, 4))
backbone = unibrain.load_backbone("small")
layout = unibrain.reconstruct(backbone, predicted, kinds={"picture"}, use={"z_image"})
axes = unibrain.plot.pictures(layout, bench.stimuli)
