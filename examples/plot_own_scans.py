"""
Your own scans
==============

Any matrix of scans x voxels, a folder of pictures, and a table that says which picture was seen in which scan.

**No human was scanned for this page.** The "laboratory" below makes its data up: pictures are composed scenes, and
voxels are mixtures of their colours with noise. ``simulated=True`` makes every page say so; leave it out for real
scans.
"""

# %%
# What a laboratory might have on its disk: sixty scans of fifty pictures, ten of them seen twice.
import csv
from pathlib import Path

import numpy as np
from PIL import Image

import unibrain
from unibrain.demo import describe, render, sample_scene

rng, lab = np.random.default_rng(0), Path("lab")
(lab / "shown").mkdir(parents=True, exist_ok=True)
lines, features = [], []
for number in range(50):
    scene = sample_scene(0, number, "train")
    picture = render(scene, 64)
    Image.fromarray(picture).save(lab / "shown" / f"scene{number:02d}.png")
    features.append(picture.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).ravel() / 127.5 - 1)
    lines.append([f"scene{number:02d}.png", "|".join(describe(scene)), "test" if number >= 40 else "train"])
lines, features = lines + lines[40:], features + features[40:]
responses = np.array(features) @ rng.normal(size=(192, 300))
np.save(lab / "betas.npy", responses + 4 * rng.normal(size=responses.shape))
np.save(lab / "early.npy", np.arange(300) < 120)
with (lab / "trials.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["scan_from_0", "picture", "captions", "split"])
    writer.writerows([scan, *line] for scan, line in enumerate(lines))

# %%
# Name the files once, and run. On the command line this is ``unibrain import`` and the stages after it.
from unibrain.pipeline import ControlsSection, CustomSection

settings = unibrain.Settings(
    custom=CustomSection(
        scans="lab/betas.npy",
        pictures="lab/shown",
        table="lab/trials.csv",
        regions="early=lab/early.npy",
        name="lab-1",
        simulated=True,
    ),
    controls=ControlsSection(controls="random,nearest", images=6),
)
run = unibrain.RunFolder("lab-run")
results = unibrain.run_all(run, settings)
unibrain.load_subject(run.root)

# %%
# With forty training pictures the result is poor, of course: published decoders use thousands, seen up to three times
# each.
decoded = unibrain.load_decoded("lab-run/decoded")
stimuli = unibrain.read_custom_stimuli("lab-run/stimuli")
axes = unibrain.plot.pictures(decoded, stimuli, most=5)

# %%
# How well the latents are predicted, from all voxels and from the region that was named.
axes = unibrain.plot.accuracy(unibrain.load_scores("lab-run/scores.json"))
