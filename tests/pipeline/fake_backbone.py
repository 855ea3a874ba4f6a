"""A backbone without a network: latents are small pictures and hashed words, and it decodes what it encoded."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from unibrain.backbone.config import SamplingSettings

WIDTH = 16
WORDS = ("a", "red", "car", "dog", "on", "the", "beach", "tree", "face", "house")


class FakeBackbone:
    name = "fake"
    precision = "fp32"
    image_settings = SamplingSettings(image_weight=0.6, steps=10)
    text_settings = SamplingSettings(image_weight=0.9, steps=10)

    def __init__(self, weights: str = "one", stop_at_caption: int | None = None) -> None:
        self.fingerprint = hashlib.sha256(weights.encode()).hexdigest()
        self.calls: list[str] = []
        self.stop_at_caption = stop_at_caption

    def scans_at_once(self, kind: str) -> int:
        return 32

    def _words(self, captions: list[str], width: int) -> NDArray[np.float32]:
        rows = np.zeros((len(captions), width), dtype=np.float32)
        for row, caption in zip(rows, captions, strict=True):
            for word in caption.lower().split():
                row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % width] += 1
        return rows

    def encode_pictures(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls.append("encode_pictures")
        n, height, width, _ = pictures.shape
        blocks = pictures.reshape(n, 8, height // 8, 8, width // 8, 3).mean(axis=(2, 4))
        return (blocks.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)

    def encode_captions(self, captions: list[str]) -> NDArray[np.float32]:
        return self._words(captions, WIDTH)

    def picture_contexts(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.encode_pictures(pictures).reshape(len(pictures), 12, WIDTH)

    def caption_contexts(self, captions: list[str]) -> NDArray[np.float32]:
        return self._words(captions, 4 * WIDTH).reshape(-1, 4, WIDTH)

    def caption_embeddings(self, captions: list[str]) -> NDArray[np.float32]:
        return self._words(captions, WIDTH)

    def sample_pictures(
        self,
        z_image: NDArray[np.float32],
        c_image: NDArray[np.float32],
        c_text: NDArray[np.float32],
        settings: SamplingSettings,
        seeds: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        self.calls.append(f"sample_pictures {len(seeds)}")
        small = np.clip((z_image.transpose(0, 2, 3, 1) + 1) * 127.5, 0, 255).astype(np.uint8)
        return small.repeat(8, axis=1).repeat(8, axis=2)

    def sample_captions(
        self,
        z_text: NDArray[np.float32],
        c_image: NDArray[np.float32],
        c_text: NDArray[np.float32],
        settings: SamplingSettings,
        seeds: NDArray[np.int64],
    ) -> list[str]:
        self.calls.append(f"sample_captions {len(seeds)}")
        if self.stop_at_caption is not None and self.calls.count(self.calls[-1]) > self.stop_at_caption:
            raise KeyboardInterrupt
        return [" ".join(WORDS[i] for i in np.argsort(row)[-3:] % len(WORDS)) for row in z_text]
