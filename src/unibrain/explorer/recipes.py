"""What is on the page as a few lines of Python, and as a command: both decode the very same items."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from unibrain.explorer.items import Choice
from unibrain.pipeline import BackboneSource

Source: TypeAlias = int | str
"""The id of a test image, or the digest of a scan that was handed over or painted."""

SCAN_FILE = "scan.npy"
"""What a scan that is no test image is called in recipes."""


def as_python(run: Path, backbone: str, device: BackboneSource, source: Source, choice: Choice, threads: int) -> str:
    """Python that decodes these items, and writes them to a folder; it runs as it is."""
    more = f", device={device.device!r}" if device.device != "auto" else ""
    more += f", dtype={device.dtype!r}" if device.dtype != "auto" else ""
    more += ", offload=True" if device.offload else ""
    if isinstance(source, str):
        latents = [
            f"decoder = unibrain.BrainDecoder.load({str(run / 'decoder')!r})",
            f"latents = decoder.predict(np.load({SCAN_FILE!r}), [0])",
        ]
    else:
        latents = [
            f"latents = unibrain.open_latents({str(run / 'predicted')!r}).select(np.array([{source}])).read()",
        ]
    options = choice.options()
    kinds, use = sorted(options.pop("kinds"), reverse=True), list(choice.use)
    lines = [
        "import numpy as np",
        "import torch",
        "",
        "import unibrain",
        "",
        f"torch.set_num_threads({threads})  # another number may round otherwise, by a grey level",
        f"backbone = unibrain.load_backbone({backbone!r}{more})",
        *latents,
        "decoded = unibrain.reconstruct(",
        "    backbone,",
        "    latents,",
        f"    kinds={kinds!r},",
        f"    use={use!r},",
        *(f"    {name}={value!r}," for name, value in options.items() if name != "use"),
        ")",
        f"unibrain.save_decoded({_folder(source)!r}, decoded)",
    ]
    return "\n".join(lines) + "\n"


def as_command(run: Path, device: BackboneSource, source: Source, choice: Choice, threads: int) -> str:
    """The command that decodes these items, and writes them to a folder."""
    words = ["unibrain", "decode", str(run)]
    words += ["--scan", SCAN_FILE] if isinstance(source, str) else ["--image", str(source)]
    words += ["--use", ",".join(choice.use), "--seed", str(choice.seed)]
    for kind, settings in choice.sampling.items():
        words += [f"--{kind}", ",".join(f"{name}={value}" for name, value in asdict(settings).items())]
    words += ["--device", device.device] * (device.device != "auto")
    words += ["--dtype", device.dtype] * (device.dtype != "auto")
    words += ["--offload"] * device.offload
    words += ["--threads", str(threads), "--out", _folder(source)]
    return shlex.join(words)


def _folder(source: Source) -> str:
    return "decoded-scan" if isinstance(source, str) else f"decoded-{source}"
