"""A second `Backbone`, in NumPy alone: latents are small pictures and hashed words, and it decodes what it encoded.

Deterministic, fast, and sensitive to everything that a real one is: start, contexts, settings, seeds, weights. An extra
kind, ``ToyBackbone(extra="depth")``, adds the latent ``z_depth`` of pictures, which starts that kind.
"""

import hashlib
from collections.abc import Mapping

import numpy as np

from unibrain.backbone import SamplingError, SamplingSettings
from unibrain.errors import InputError

SIDE = 8
WIDTH = 16
PICTURE = 64
WORDS = "a red car dog on the beach tree face house blue sky cat grass sea boat".split()  # noqa: SIM905


def words(captions, width):
    """Count hashed words, (n, width)."""
    rows = np.zeros((len(captions), width), dtype=np.float32)
    for row, caption in zip(rows, captions, strict=True):
        for word in caption.lower().split():
            place = WORDS.index(word) if word in WORDS else int(hashlib.sha256(word.encode()).hexdigest(), 16)
            row[place % width] += 1
    return rows


class ToyBackbone:
    """See the module; `calls` tells what was asked, for example ``"sample picture 2"``.

    `stop` is a call and how often it may be made: the next one raises KeyboardInterrupt.
    """

    name = "toy"
    precision = "fp32"

    def __init__(self, weights: str = "one", extra: str | None = None, stop: tuple[str, int] | None = None) -> None:
        self.fingerprint = hashlib.sha256(weights.encode()).hexdigest()
        self.kinds = ("picture", "caption", *([extra] if extra else []))
        self.extra, self.stop = extra, stop
        self.calls: list[str] = []

    def sampling(self, kind):
        self._known(kind)
        return SamplingSettings(image_weight=0.9 if kind == "caption" else 0.6, steps=10)

    def scans_at_once(self, kind):
        self._known(kind)
        return 32

    def encode(self, latent, items):
        self._called(f"encode {latent} {len(items)}")
        if latent in ("z_text", "c_text"):
            return words(items, WIDTH) if latent == "z_text" else words(items, 4 * WIDTH).reshape(-1, 4, WIDTH)
        if latent not in ("z_image", "c_image", f"z_{self.extra}"):
            raise InputError(f"backbone toy has no latent {latent!r}")
        n, height, width, _ = items.shape
        rows, columns = (np.linspace(0, size, SIDE + 1).astype(int)[:-1] for size in (height, width))
        sums = np.add.reduceat(np.add.reduceat(items.astype(np.float64), rows, axis=1), columns, axis=2)
        counts = np.diff([*rows, height])[:, None] * np.diff([*columns, width])
        blocks = (sums / counts[:, :, None] / 127.5 - 1).transpose(0, 3, 1, 2).astype(np.float32)
        if latent == "c_image":
            return blocks.reshape(n, 12, WIDTH)
        return blocks if latent == "z_image" else blocks.mean(axis=1)

    def embed(self, kind, items):
        self._known(kind)
        rows = words(items, WIDTH) if kind == "caption" else self.encode("c_image", items).mean(axis=1)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)

    def sample(self, kind, start, contexts: Mapping[str, np.ndarray], settings, seeds, callback=None):
        self._called(f"sample {kind} {len(seeds)}")
        shape = self._shape(kind)
        unknown = set(contexts) - {"c_image", "c_text"}
        if unknown or (start is not None and start.shape[1:] != shape):
            raise InputError(f"backbone toy takes no {unknown or start.shape}")
        shares = {"c_image": settings.image_weight, "c_text": 1 - settings.image_weight}
        total = sum(shares[name] for name in contexts)
        hint = np.zeros(len(seeds))
        for name, rows in contexts.items():
            share = shares[name] / total if total else 1 / len(contexts)
            hint = hint + share * rows.mean(axis=(1, 2), dtype=np.float64)
        noise = np.stack([np.random.default_rng(int(seed)).standard_normal(shape) for seed in seeds])
        steps = settings.steps if start is None else int(settings.strength * settings.steps)
        x = noise if start is None else start + 0.01 * noise
        guide = (0.01 * hint * settings.guidance_scale).reshape(-1, *[1] * len(shape))
        for step in range(1, steps + 1):
            x0 = (x + guide / steps).astype(np.float32)
            if not (np.abs(x0) < 1e6).all():
                row = int((~(np.abs(x0) < 1e6)).reshape(len(x0), -1).any(axis=1).argmax())
                raise SamplingError(f"row {row} left the range of numbers", row)
            x = x0
            if callback is not None:
                callback(step, steps, x0)
        return self._items(kind, x)

    def decode(self, kind, start):
        self._called(f"decode {kind} {len(start)}")
        return self._items(kind, np.asarray(start))

    def _items(self, kind, x):
        self._shape(kind)
        if kind == "caption":
            return [" ".join(WORDS[i] for i in sorted(np.argsort(row)[-3:])) for row in x]
        levels = np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)
        if kind != "picture":
            return levels
        return levels.transpose(0, 2, 3, 1).repeat(PICTURE // SIDE, axis=1).repeat(PICTURE // SIDE, axis=2)

    def _shape(self, kind):
        self._known(kind)
        return {"picture": (3, SIDE, SIDE), "caption": (WIDTH,)}.get(kind, (SIDE, SIDE))

    def _known(self, kind):
        if kind not in self.kinds:
            raise InputError(f"backbone toy decodes no {kind!r}")

    def _called(self, call):
        if self.stop is not None and call == self.stop[0] and self.calls.count(call) >= self.stop[1]:
            raise KeyboardInterrupt
        self.calls.append(call)
