"""
First decode
============

From a scan to the picture that was seen and a sentence, in a minute, on a laptop's processor. Nothing is downloaded.

**No human was scanned for this page.** The scans are simulated, and the small backbone draws the scenes of its own
little world. The very same lines read real scans: see the example on NSD, and the one on your own scans.
"""

# %%
# A whole run is one call: simulate a subject, turn what it saw into latents, fit four ridge regressions, decode the
# scans of unseen images, score them beside controls. The demo trains on 3,000 images. This page takes 400 to be made
# in seconds, and its pictures are poorer for it. Run it again, and what is done already is skipped.
import unibrain

run = unibrain.RunFolder("gallery-run")
results = unibrain.run_all(run, unibrain.demo_settings(images=12, training_images=400))

# %%
# The prepared scans: a row for each image, a number for each voxel.
subject = unibrain.load_subject("gallery-run")
subject

# %%
# One scan of an image that the decoder has never met. This is all it takes to decode it.
scan = subject.test.rows([0])
unibrain.decode(run, scan)

# %%
# All unseen images, below what was seen. Look at the first ones, whatever they are: nothing is chosen.
stimuli = unibrain.read_nsd_stimuli("gallery-run/nsd", subject.stimulus_ids)
decoded = unibrain.load_decoded("gallery-run/decoded")
axes = unibrain.plot.pictures(decoded, stimuli, most=6)

# %%
# Each score between its controls, which know nothing of the scan or only a part of what it says, and its ceilings,
# which are decoded from the true latents.
scores = unibrain.load_scores("gallery-run/scores.json")
axes = unibrain.plot.scores(scores)

# %%
# The same as a table. Twelve images make wide intervals.
scores
