"""
A fifth latent
==============

The four latents are rows of a table, and the code walks over that table. A row more, an encoder and, if the latent
starts something of its own, a decoder: then it is extracted, predicted from scans and decoded like the others.

**No human was scanned for this page.** The fifth latent is a toy: a palette of 4 x 4 colours, whose "decoder" enlarges
it. A depth map or a sketch with a network of its own would be added in the same way.
"""

# %%
# The row: its name, how many dimensions it has, what it is made from, and which kind of item starts from it.
import numpy as np
from matplotlib import pyplot

import unibrain
from unibrain.latents import LatentRow

unibrain.LATENTS["z_palette"] = LatentRow("z_palette", "palette of 4 x 4 colours", 3, "picture", starts="palette")


# %%
# The backbone: all that the small one does, and the new latent beside it. `unibrain.Backbone` says what a backbone is
# to the rest of the package.
class WithPalette:
    """The small backbone, with one latent and one kind of item more."""

    def __init__(self, backbone):
        self.backbone = backbone
        self.kinds = (*backbone.kinds, "palette")

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def encode(self, latent, items):
        """Mean colours of 4 x 4 blocks, from -1 to 1; other latents are the backbone's own."""
        if latent != "z_palette":
            return self.backbone.encode(latent, items)
        n, height, width, _ = items.shape
        blocks = items.reshape(n, 4, height // 4, 4, width // 4, 3).mean(axis=(2, 4))
        return (blocks / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2)

    def sampling(self, kind):
        """A palette is sampled like a picture."""
        return self.backbone.sampling("picture" if kind == "palette" else kind)

    def scans_at_once(self, kind):
        """As many as pictures."""
        return self.backbone.scans_at_once("picture" if kind == "palette" else kind)

    def sample(self, kind, start, *arguments):
        """A palette needs no diffusion."""
        return self.decode(kind, start) if kind == "palette" else self.backbone.sample(kind, start, *arguments)

    def decode(self, kind, start):
        """Enlarge the palette to a picture."""
        if kind != "palette":
            return self.backbone.decode(kind, start)
        colours = np.clip((start + 1) * 127.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return colours.repeat(16, axis=1).repeat(16, axis=2)


backbone = WithPalette(unibrain.load_backbone("small"))

# %%
# Everything else is as always. A hundred training images are enough to see it work.
run = unibrain.RunFolder("gallery-run")
results = unibrain.run_all(run, unibrain.demo_settings(images=12, training_images=400))
subject = unibrain.load_subject(run.root)
stimuli = unibrain.read_nsd_stimuli("gallery-run/nsd", subject.stimulus_ids)
train, test = subject.train.rows(np.arange(min(100, (~subject.is_test).sum()))), subject.test
latents = unibrain.extract(backbone, stimuli, train.stimulus_ids)
latents

# %%
# Fit, predict, decode: the new kind is in ``decoded.others``.
decoder = unibrain.BrainDecoder().fit(train.betas, latents)
predicted = decoder.predict(test.betas, test.stimulus_ids)
decoded = unibrain.reconstruct(backbone, predicted, kinds={"palette"})

figure, axes = pyplot.subplots(2, 5, figsize=(8, 3.4), layout="constrained")
seen = stimuli.pictures(test.stimulus_ids)
for column in range(5):
    axes[0, column].imshow(seen[column])
    axes[1, column].imshow(decoded.others["palette"][column])
for panel in axes.ravel():
    panel.set_axis_off()

# %%
# How well it is predicted, beside the other four: the metrics of latents walk over the table as well.
true = unibrain.extract(backbone, stimuli, test.stimulus_ids)
for name, value in unibrain.METRICS["latent_accuracy"].function(predicted, true).items():
    print(f"{name:10} {value:.3f}")

# %%
# The table is one for the whole process, so take the row out where others go on working in it.
del unibrain.LATENTS["z_palette"]
