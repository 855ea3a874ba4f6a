"""
Reading NSD
===========

From the files of the Natural Scenes Dataset to a prepared subject.

**What this page cannot show.** NSD asks everyone to agree to its terms, and its betas fill a hundred gigabytes: neither
can be had where this page is made. It reads a *miniature* in NSD's own file layout, written by the simulator: names,
types, axis orders and index bases are NSD's, sizes are not, and no human was scanned. For the real thing, give the
folder that ``unibrain nsd fetch`` filled.
"""

# %%
# A miniature, with betas in both of NSD's formats.
from pathlib import Path

import unibrain

root = Path("nsd-miniature")
size = unibrain.SimulationSettings(training_images=60, test_images=8, sessions=4, beta_formats=("hdf5", "nifti"))
unibrain.simulate_nsd(root, size)
for path in sorted(root.rglob("*"))[:12]:
    print(path.relative_to(root))

# %%
# Read subject 1: repeats averaged, voxels z-scored with the training images' statistics, the shared images held out.
subject = unibrain.read_nsd(root, 1)
subject

# %%
# The same scans as other groups prepare them: here every training trial is a row of its own. With all of NSD,
# ``protocol="unibrain"`` gives 8,859 training and 982 test images for subjects 1, 2, 5 and 7.
unibrain.read_nsd(root, 1, unibrain.PrepareSettings(protocol="single-trial", mask="V1+V2+faces"))

# %%
# Where the voxels lie, and how much of their variance could be explained at best.
shown = {name: subject.regions[name] for name in ("V1", "V4", "faces", "places")}
axes = unibrain.plot.slices(subject, {"noise ceiling": subject.noise_ceiling}, shown, "percent")

# %%
# What was seen: pictures and captions by NSD's 73k id.
stimuli = unibrain.read_nsd_stimuli(root, subject.stimulus_ids)
first = subject.test.stimulus_ids[0]
print(f"image {first}: {stimuli.captions([first])[0][0]}")

# %%
# Look before you believe: missing sessions, dead voxels, test images that resemble training images.
from unibrain.audit import audit_nsd

for finding in audit_nsd(root, 1).findings:
    if finding.level != "ok":
        print(f"{finding.level}: {finding.title}: {finding.what}")
