"""Peak memory of loading a backbone and reading all its weights; run as a process of its own by `backbone.py`.

Prints one line of JSON: bytes at the peak before anything was loaded, and at the end.
"""

import json
import sys
from pathlib import Path


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage, this does not begin with the peak of the process that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(folder: str, dtype: str) -> None:
    """Load the backbone in `folder`, read every weight once, and report."""
    import transformers.models.bert.modeling_bert
    import transformers.models.clip.modeling_clip
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401
    from diffusers import AutoencoderKL  # noqa: F401

    from unibrain.backbone.loading import load_folder

    before = _peak()
    backbone = load_folder(Path(folder), "cpu", dtype=dtype)
    weights = 0
    seen = set()
    for module in (backbone.flows, backbone.autokl, backbone.optimus, backbone.clip):
        for weight in module.parameters():
            if weight.data_ptr() in seen:
                continue
            seen.add(weight.data_ptr())
            weights += weight.numel() * weight.element_size()
            # Mapped pages count only when they are read.
            weight.sum()
    print(json.dumps({"before": before, "after": _peak(), "weights": weights}))


if __name__ == "__main__":
    main(*sys.argv[1:])
