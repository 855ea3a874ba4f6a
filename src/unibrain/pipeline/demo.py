"""The main job on the embedded default: what `unibrain demo` runs."""

from typing import Literal

from unibrain.pipeline.settings import ExtractSection, ReconstructSection, ReportSection, Settings, SimulateSection

__all__ = ["demo_settings"]


def demo_settings(
    images: int = 120,
    training_images: int = 3000,
    seed: int = 1,
    difficulty: Literal["easy", "realistic"] = "easy",
    batch_size: int = 32,
) -> Settings:
    """Settings of the demo.

    Parameters
    ----------
    images : int
        Unseen images that are decoded, 2 to 1,000.
    training_images : int
        Images that the decoder is trained on, 4 to 9,000.
    seed : int
        Of the simulated subject.
    difficulty : {"easy", "realistic"}
        How noisy the simulated scans are.
    batch_size : int
        Scans, or images, at a time.

    Returns
    -------
    Settings

    Raises
    ------
    InputError
        If a value is not allowed.
    """
    return Settings(
        simulate=SimulateSection(difficulty=difficulty, seed=seed, training_images=training_images, test_images=images),
        extract=ExtractSection(batch_size=batch_size),
        reconstruct=ReconstructSection(batch_size=batch_size),
        report=ReportSection(title="UniBrain demo"),
    )
