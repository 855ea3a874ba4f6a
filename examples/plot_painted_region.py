"""
A region, painted
=================

What does the decoder make of a scan in which one region alone is active? Nobody saw anything in such a scan: it shows
what the decoder has learnt of a region, which need not be what the region does in a brain.

**No human was scanned for this page.**
"""

# %%
# The run of the first example. Where it is there already, this takes a moment.
import numpy as np

import unibrain

run = unibrain.RunFolder("gallery-run")
results = unibrain.run_all(run, unibrain.demo_settings(images=12, training_images=400))
subject = unibrain.load_subject(run.root)

# %%
# Start from the mean of the training scans. Voxels are z-scored, so 2 is two deviations: paint one region that far
# above its mean.
names = ["faces", "places", "V1"]
rest = subject.train.betas.mean(axis=0)
scans = np.array([rest, *(rest + 2.0 * subject.regions[name] for name in names)])
painted = {name: 2.0 * subject.regions[name] for name in names}
axes = unibrain.plot.slices(subject, painted, {name: subject.regions[name] for name in names}, "deviations")

# %%
# All scans get the same stimulus id, and with it the same noise: whatever differs comes from the region. The first is
# the scan in which nothing is active.
decoded = unibrain.decode(run, scans, stimulus_ids=[0, 0, 0, 0])
axes = unibrain.plot.pictures(decoded)
for panel, name in zip(axes[0], ["no region", *names], strict=True):
    panel.set_title(name)

# %%
# How far each region moves each latent, in units of what the scan of a test image does.
latents = unibrain.BrainDecoder.load("gallery-run/decoder").predict(np.vstack([scans, subject.test.betas]))
print(f"{'':10}" + "".join(f"{name:>10}" for name in latents))
for row, name in enumerate(names, start=1):
    moved = []
    for values in latents.values():
        shift = np.linalg.norm((values - values[0]).reshape(len(values), -1), axis=1)
        moved.append(shift[row] / np.sqrt(np.mean(shift[len(scans) :] ** 2)))
    print(f"{name:10}" + "".join(f"{value:10.2f}" for value in moved))

# %%
# ``unibrain regions gallery-run --activate faces,places,V1`` asks the same with several seeds, decodes from regions
# alone and without them, and maps what each voxel contributes.
