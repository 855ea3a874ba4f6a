"""`LATENTS`, the table of latents, and `Latents`, their values for a set of images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unibrain.errors import InputError
from unibrain.workspace import notebook


@dataclass(frozen=True)
class LatentRow:
    """What the package has to know of one latent.

    Attributes
    ----------
    name : str
    title : str
        For people.
    rank : int
        Number of dimensions of one image's latent.
    source : {"picture", "caption"}
        What its encoder reads.
    starts : str or None
        The kind of item ("picture", "caption") whose flow starts from it.
    guides : bool
        Whether it guides every step of all flows.
    explanation : str
        One sentence for the report.
    """

    name: str
    title: str
    rank: int
    source: Literal["picture", "caption"]
    starts: str | None = None
    guides: bool = False
    explanation: str = ""


LATENTS: dict[str, LatentRow] = {
    row.name: row
    for row in (
        LatentRow(
            "z_image",
            "image latent (AutoKL)",
            3,
            "picture",
            starts="picture",
            explanation="Layout and colour. The picture starts from it, with noise added.",
        ),
        LatentRow(
            "z_text",
            "text latent (Optimus)",
            1,
            "caption",
            starts="caption",
            explanation="A whole sentence in one vector. The caption starts from it, with noise added.",
        ),
        LatentRow(
            "c_image",
            "CLIP-Image tokens",
            2,
            "picture",
            guides=True,
            explanation="What is on the picture, and where. It guides every step of both flows.",
        ),
        LatentRow(
            "c_text",
            "CLIP-Text tokens",
            2,
            "caption",
            guides=True,
            explanation="What people say about the picture. It guides every step of both flows.",
        ),
    )
}
"""Name of a latent to its row. A further latent is a further row (paper, figure 2, has these four)."""


def latent_title(name: str) -> str:
    """Title of a latent for people; its name if it has no row in the table."""
    return LATENTS[name].title if name in LATENTS else name


@dataclass(frozen=True, eq=False, repr=False)
class Latents(Mapping[str, NDArray[np.float32]]):
    """Latents of a set of images: a mapping of latent name to array.

    Attributes
    ----------
    stimulus_ids : ndarray of shape (n,), int64
        0-based ids, in the order of the rows.
    arrays : mapping of str to ndarray of shape (n, ...), float32
        Any names are allowed; those of `LATENTS` are ``z_image`` (n, channels, height, width), ``z_text`` (n, width),
        ``c_image`` and ``c_text`` (n, tokens, width). A latent that does not exist for these images is left out.

    Raises
    ------
    InputError
        If an array has another number of rows than there are ids, or another rank than its row in `LATENTS`.

    Examples
    --------
    >>> latents = Latents(np.array([3, 8]), {"z_text": np.zeros((2, 5), np.float32)})
    >>> latents
    Latents(2 images: z_text 5)
    >>> latents["z_text"].shape
    (2, 5)
    """

    stimulus_ids: NDArray[np.int64]
    arrays: Mapping[str, NDArray[np.float32]]

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            rank = LATENTS[name].rank if name in LATENTS else array.ndim - 1
            if len(array) != self.n or array.ndim != rank + 1:
                raise InputError(
                    f"latent {name} has shape {array.shape}, which is not {self.n} images of {rank} dimensions each: "
                    "extract the latents again"
                )

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        shapes = (f"{name} {'x'.join(map(str, array.shape[1:]))}" for name, array in self.arrays.items())
        return f"Latents({self.n} images: {', '.join(shapes)})"

    def _repr_html_(self) -> str:
        """For notebooks: the shape of each latent, and what it does."""
        shapes = {name: array.shape[1:] for name, array in self.arrays.items()}
        return notebook.paragraph(f"Latents of {self.n:,} images", bold=True) + shapes_table(shapes)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.stimulus_ids)

    def rows(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> "Latents":
        """Keep some images, by a slice, a mask or row numbers."""
        return Latents(self.stimulus_ids[rows], {name: array[rows] for name, array in self.arrays.items()})

    def select(self, stimulus_ids: NDArray[np.int64]) -> "Latents":
        """Keep the images `stimulus_ids`, in that order, an id as often as it is named.

        Raises
        ------
        InputError
            If one of them is missing.
        """
        return self.rows(rows_of(self.stimulus_ids, stimulus_ids))


def shapes_table(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """A table for notebooks: name of each latent, its shape for one image, and what it does."""
    rows = []
    for name, shape in shapes.items():
        row = LATENTS.get(name)
        role = "" if row is None else f"{row.starts} starts from it" if row.starts else "guides" if row.guides else ""
        title, size = "" if row is None else row.title, int(np.prod(shape))
        rows.append((name, " x ".join(map(str, shape)) or "1", f"{size:,}", title, role))
    return notebook.table(("latent", "shape", "numbers", "title", "role"), rows)


def rows_of(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each wanted image.

    Parameters
    ----------
    known : ndarray of shape (n,), int64
        Image of each row. If an image has several rows, the first counts.
    wanted : ndarray of shape (m,), int64
        Ids in any order, repeats allowed.

    Returns
    -------
    ndarray of shape (m,), int64

    Raises
    ------
    InputError
        If one of them is missing.
    """
    wanted = np.asarray(wanted, dtype=np.int64).reshape(-1)
    images, first = np.unique(known, return_index=True)
    absent = wanted[~np.isin(wanted, images)]
    if len(absent):
        raise InputError(
            f"no latents of image id {absent[0]} ({len(absent)} of {len(wanted)} are missing): extract the latents of "
            "this subject's images"
        )
    return first[np.searchsorted(images, wanted)].astype(np.int64)
