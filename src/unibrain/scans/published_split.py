"""Splits that a data set's authors published: which pictures are trained on, and which are test.

Read are files of the form in which LAION-fMRI's own package ``laion_fmri`` has its splits (``tau``, ``cluster_k5_0`` to
``_4``, ``ood``, ``random_0`` to ``_4``), from that package where it is installed, or from wherever they are. Nothing of
the package is run.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unibrain.errors import InputError
from unibrain.scans.foreign import read_json

_PACKAGE = "laion_fmri"
_INSTALL = "Install it from github.com/ViCCo-Group/LAION-fMRI, or give the path of the split's .json file"
_SIDES = {"train_ids": False, "test_ids": True}


@dataclass(frozen=True)
class PictureSplit:
    """The side of every picture that a split names; `origin` says whose it is."""

    is_test: Mapping[str, bool]
    origin: str


def split_file(split: str, subject: str | None = None) -> Path:
    """Where a split is, which need not be there: itself if it is a ``.json`` file, else in the installed package.

    Raises `InputError` if it is no name of a split, or the package is not installed.
    """
    if split.lower().endswith(".json"):
        return Path(split)
    pool, _, name = split.rpartition("/")
    pool = pool or subject or ""
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", word) for word in (pool, name)):
        raise InputError(f"--split is {split}. Give a name such as tau or shared/ood, or the path of a .json file.")
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"--split {split}: the package {_PACKAGE} is not installed, which has the splits. {_INSTALL}.")
    return Path(next(iter(found.submodule_search_locations))) / "splits" / "data" / pool / f"{name}.json"


def read_picture_split(split: str, subject: str | None = None) -> PictureSplit:
    """Read a split by name, or from a file.

    Parameters
    ----------
    split : str
        A path that ends in ``.json``; or ``tau``, ``shared/ood`` and the like in the installed package ``laion_fmri``:
        the split of a pool of pictures, which is `subject`'s unless it is named.
    subject : str, optional
        Such as ``"sub-01"``.

    Returns
    -------
    PictureSplit

    Raises
    ------
    InputError
        If it is not there, or is no split: sides that overlap, are empty, or are not as long as the file says.
    """
    path = split_file(split, subject)
    if split == str(path):
        return _read(path, path.name)
    folder = path.parent
    if not path.is_file():
        there = sorted(file.stem for file in folder.glob("*.json"))
        pools = sorted(file.name for file in folder.parent.glob("*") if file.is_dir())
        has = f"the splits {', '.join(there)}" if there else f"the pools {', '.join(pools) or 'none'}"
        raise InputError(f"{path}: no such file. {_PACKAGE} has {has}: choose among them with --split.")
    return _read(path, f"{path.stem} of {_PACKAGE} (pool {folder.name})")


def _read(path: Path, origin: str) -> PictureSplit:
    content: Any = read_json(path, "a split of pictures", _INSTALL)
    try:
        variant = content["variants"][0]
        sides = {key: [_name(path, text) for text in variant[key]] for key in _SIDES}
        counts = {"train_ids": int(content["n_train"]), "test_ids": int(content["n_test"])}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is no split as {_PACKAGE} has them ({error!r}; it needs variants with train_ids and test_ids, "
            "and n_train and n_test). Take the file from the package."
        ) from error
    is_test: dict[str, bool] = {}
    for key, names in sides.items():
        if len(names) != counts[key] or not names:
            raise InputError(f"{path}: {key} has {len(names)} pictures, not {counts[key]}. Take it from the package.")
        for name in names:
            if name in is_test:
                raise InputError(
                    f"{path}: picture {name} is listed twice, and a test picture may not be trained on. Take it from "
                    "the package."
                )
            is_test[name] = _SIDES[key]
    return PictureSplit(is_test, origin)


def _name(path: Path, text: object) -> str:
    if not isinstance(text, str) or not text:
        raise InputError(f"{path}: names the picture {text!r}, which is no file name. Take it from the package.")
    return unicodedata.normalize("NFC", text)
