"""`Score` and `Scores`: what a metric found, beside what chance would have found."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Score", "Scores"]


@dataclass(frozen=True)
class Score:
    """One metric on one set of images.

    Attributes
    ----------
    name : str
        Key, for example ``"two_way_picture"``.
    title : str
        For people, for example ``"two-way identification (EfficientNet-lite0)"``.
    about : {"picture", "caption"}
    value : float or None
        The score; None if it could not be computed (then `note` says why and what to do).
    control : float or None
        The same metric with the decoded items shuffled against the images.
    images : int
        Number of images it was computed on.
    higher_is_better : bool
    per_image : tuple of float
        One value per image, in the order of the decoded ones; empty if the metric has none.
    note : str
        Why there is no value, or what to know of it; may be empty.
    """

    name: str
    title: str
    about: Literal["picture", "caption"]
    value: float | None
    control: float | None
    images: int
    higher_is_better: bool
    per_image: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Scores:
    """All scores of one run, in the order in which they are shown, and how well each latent was predicted.

    Attributes
    ----------
    scores : tuple of Score
    stimulus_ids : tuple of int
        The images, in the order of every `Score.per_image`.
    latent_accuracy : mapping-like tuple of (latent, region, correlation)
        Mean Pearson correlation across test images between predicted and true latent dimensions, per latent and
        region; region ``"all"`` is all voxels.
    simulated : bool
        True if the scans were simulated.
    """

    scores: tuple[Score, ...]
    stimulus_ids: tuple[int, ...]
    latent_accuracy: tuple[tuple[str, str, float], ...]
    simulated: bool

    def __getitem__(self, name: str) -> Score:
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(f"no score {name!r}; there are {', '.join(score.name for score in self.scores)}")
