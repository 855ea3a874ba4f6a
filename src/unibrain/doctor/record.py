"""``python -m unibrain.doctor.record``: take the fingerprints that `unibrain doctor` compares with, as they are now.

To be run when the small backbone's weights or a probe changed, or when a moved result was looked into and found right.
"""

from unibrain.backbone.folder import backbone_folder
from unibrain.doctor.fingerprints import RECORD, Bench, take_record, write_record
from unibrain.doctor.probes import PROBES
from unibrain.workspace.progress import limit_threads, say

if __name__ == "__main__":
    limit_threads(1)
    write_record(take_record(PROBES, Bench(backbone_folder("small"))))
    say(f"{RECORD}: {len(PROBES)} fingerprints")
