"""
A new metric
============

A metric is a function and a row of a table. Controls, intervals, the report and the command line follow.

**No human was scanned for this page.**
"""

# %%
# The run of the first example. Where it is there already, this takes a moment.
import numpy as np

import unibrain
from unibrain.evaluation.metrics import on_pictures

run = unibrain.RunFolder("gallery-run")
results = unibrain.run_all(run, unibrain.demo_settings(images=12, training_images=400))
subject = unibrain.load_subject(run.root)
stimuli = unibrain.read_nsd_stimuli("gallery-run/nsd", subject.stimulus_ids)
decoded = unibrain.load_decoded("gallery-run/decoded")


# %%
# How far apart are the mean colours of two pictures? The function takes n seen and n decoded pictures of one size and
# returns n values.
def colour_distance(seen, decoded):
    """Distance of the mean colours, from 0 (the same) to 1 (black and white)."""
    difference = seen.mean(axis=(1, 2)) - decoded.mean(axis=(1, 2))
    return np.linalg.norm(difference, axis=1) / (255 * np.sqrt(3))


row = unibrain.Metric(
    "colour",
    "Distance of mean colours",
    "Colour",
    "picture",
    "Is the overall colour right?",
    "Distance of the mean colours in RGB. 0: the same; 1: black and white.",
    on_pictures(colour_distance),
    higher_is_better=False,
)

# %%
# It is scored beside its controls, with an interval. In the package it would be one more row of `METRICS`; here it is
# handed over beside another one.
controls = {name: unibrain.load_decoded(f"gallery-run/controls/{name}") for name in ("random", "oracle")}
scores = unibrain.evaluate(
    decoded,
    stimuli,
    None,
    simulated=subject.simulated,
    metrics={"pixcorr": unibrain.METRICS["pixcorr"], "colour": row},
    controls=controls,
)
scores

# %%
axes = unibrain.plot.scores(scores)

# %%
# The value of each image: which decoded picture is furthest off?
worst = int(np.argmax(scores["colour"].per_image))
print(f"image {decoded.stimulus_ids[worst]}: {scores['colour'].per_image[worst]:.3f}")
