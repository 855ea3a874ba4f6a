"""
The official weights
====================

The small backbone draws its own scenes. For photographs, and so for NSD, there is the published Versatile Diffusion.

**What this page cannot show.** The published weights are 8 GB on servers that cannot be reached where this page is
made, so nothing below decodes with them, and nobody has decoded with the real files yet. Shown is what can be checked
without them: what would be fetched, how large the model is, and how a folder of weights is verified.
"""

# %%
# What ``unibrain weights fetch official`` downloads. It shows this list with the size of every file, and asks first.
import unibrain
from unibrain.weights import official_sources

for source in official_sources():
    print(f"{source.title} ({source.licence})")
    for role, names in source.files.items():
        print(f"    {role:12} {source.repositories[0]}: {names[0]}")

# %%
# The official model and the small one are the same classes with another configuration. Networks that hold no numbers
# tell how large each part is.
from matplotlib import pyplot

from unibrain.backbone.config import OFFICIAL, BackboneConfig
from unibrain.backbone.folder import PARTS, backbone_folder
from unibrain.backbone.loading import build_empty

configurations = {"official": OFFICIAL, "small": BackboneConfig.from_json(backbone_folder("small") / "config.json")}
millions = {
    name: [sum(p.numel() for p in build_empty(config, part).parameters()) / 1e6 for part in PARTS]
    for name, config in configurations.items()
}
figure, axes = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
for offset, (name, values) in zip((-0.2, 0.2), millions.items(), strict=True):
    bars = axes.barh([place + offset for place in range(len(PARTS))], values, height=0.36, label=name)
    axes.bar_label(bars, [f"{value:,.1f}" for value in values], padding=3, fontsize=8)
axes.set_yticks(range(len(PARTS)), PARTS)
axes.invert_yaxis()
axes.set_xscale("log")
axes.set_xlim(0.3, 20_000)
axes.set_xlabel("million parameters")
legend = axes.legend(frameon=False)

# %%
# In 16 bit, the weights alone fill
total = sum(millions["official"])
print(f"{total:,.0f} M parameters: {total * 2e6 / 1e9:.1f} GB in 16 bit, {total * 4e6 / 1e9:.1f} GB in 32 bit")

# %%
# ``unibrain weights verify`` compares hashes with the manifest, and every key and shape with the configuration. Here it
# looks at the small backbone, which comes with the package and has no manifest.
from unibrain.weights import verify

manifest = verify(backbone_folder("small"))
print("keys, shapes and vocabularies are right")
print("no manifest, so hashes were not checked" if manifest is None else f"{len(manifest.files)} files are as written")

# %%
# Asking for weights that are not there is answered with what to do. Once they are, ``backbone = "official"`` in the
# section ``[extract]`` of a settings file is all that changes.
try:
    unibrain.load_backbone("official")
except unibrain.InputError as error:
    print(str(error).removeprefix(str(backbone_folder("official"))))
