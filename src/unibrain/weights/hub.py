"""Asking the Hugging Face hub what it holds, with one sentence for everything that can go wrong."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from unibrain.errors import InputError

__all__ = ["Hub", "HubError", "Listing", "RemoteFile", "is_temporary", "status_of"]

T = TypeVar("T")

WITHOUT_INTERNET = "fetch on a machine with internet and take its files to `unibrain weights import`"


class HubError(InputError):
    """An answer of the hub that another repository or a later try may better.

    Attributes
    ----------
    status : int or None
        HTTP status; None if there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub lists it.

    Attributes
    ----------
    path : str
        In the repository.
    size : int
        Bytes.
    sha256 : str or None
        Of the content; the hub knows it for large files only.
    """

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit."""

    repository: str
    commit: str
    files: dict[str, RemoteFile]


def status_of(error: BaseException) -> int | None:
    """HTTP status of the answer that an error carries, or None."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def is_temporary(error: BaseException) -> bool:
    """Whether asking again may help: no connection, one that was cut, a busy or broken server."""
    status = status_of(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    # The hub's library speaks through httpx, or httpx2 in its newer versions; neither is a dependency of ours.
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


@dataclass(frozen=True)
class Hub:
    """The hub as this process may use it. None stands for what the hub's own environment variables say.

    Attributes
    ----------
    endpoint : str, optional
        ``HF_ENDPOINT``.
    cache : Path, optional
        ``HF_HUB_CACHE``, or ``hub`` in ``HF_HOME``.
    token : str, optional
        ``HF_TOKEN``, or what ``hf auth login`` has kept.
    tries : int
        How often in a row something may fail without progress.
    pause : float
        Seconds before the second try; doubled before each further one.
    """

    endpoint: str | None = None
    cache: Path | None = None
    token: str | None = field(default=None, repr=False)
    tries: int = 4
    pause: float = 1.0

    @property
    def address(self) -> str:
        """Where the hub is, as text."""
        from huggingface_hub import constants

        return self.endpoint or constants.ENDPOINT

    @property
    def cache_folder(self) -> Path:
        """Where downloads are kept."""
        from huggingface_hub import constants

        return self.cache or Path(constants.HF_HUB_CACHE)

    @property
    def offline(self) -> bool:
        """Whether ``HF_HUB_OFFLINE`` forbids to ask."""
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE)

    def patiently(self, ask: Callable[[], T], about: str) -> T:
        """Call `ask`, again after failures that may pass, and turn what remains into one sentence.

        Raises
        ------
        HubError
            If the hub refuses, or cannot be reached.
        """
        for further in range(self.tries - 1, -1, -1):
            try:
                return ask()
            except Exception as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                if not (is_temporary(error) and further):
                    raise self.explained(error, about) from error
                time.sleep(self.pause * 2 ** (self.tries - 1 - further))
        raise AssertionError("unreachable")

    def listing(self, repository: str, revision: str | None) -> Listing:
        """List a repository's files, with their sizes.

        Parameters
        ----------
        repository : str
            ``owner/name``.
        revision : str or None
            Commit, branch or tag; None for the default branch.

        Raises
        ------
        HubError
            If the hub refuses, or cannot be reached.
        """
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self.token)
        where = repository if revision is None else f"{repository} at {revision}"
        info = self.patiently(
            lambda: api.model_info(repository, revision=revision, files_metadata=True, timeout=30.0), where
        )
        if not info.sha:
            raise HubError(f"{where}: the hub at {self.address} names no commit, expected one: check HF_ENDPOINT")
        files = {}
        for sibling in info.siblings or []:
            size = sibling.size if sibling.lfs is None else sibling.lfs.size
            if size is not None:
                sha256 = None if sibling.lfs is None else sibling.lfs.sha256
                files[sibling.rfilename] = RemoteFile(sibling.rfilename, size, sha256)
        return Listing(repository, info.sha, files)

    def cached(self, repository: str, path: str, revision: str) -> Path | None:
        """Where the cache has a file, or None. A branch is taken as the cache last saw it."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repository, path, cache_dir=self.cache_folder, revision=revision)
        return Path(found) if isinstance(found, str) else None

    def explained(self, error: BaseException, about: str) -> InputError:
        """Say in one sentence what went wrong and what to do.

        Parameters
        ----------
        error : BaseException
            What was raised by the hub's library.
        about : str
            The repository or file that was asked for.
        """
        from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RevisionNotFoundError

        if isinstance(error, InputError):
            return error
        status = status_of(error)
        if isinstance(error, OfflineModeIsEnabled):
            return HubError(
                f"{about}: not in the cache {self.cache_folder}, and HF_HUB_OFFLINE forbids to download it: unset "
                f"HF_HUB_OFFLINE, or {WITHOUT_INTERNET}"
            )
        if isinstance(error, HFValidationError):
            return InputError(f"{about}: not a repository's name, expected owner/name: check --repository")
        if status in (401, 403):
            return HubError(
                f"{about}: the hub at {self.address} refused access ({status}), so it is private, gated, or not there: "
                "accept its terms on its page and set HF_TOKEN (or run `hf auth login`), or name another repository "
                "with --repository",
                status,
            )
        if isinstance(error, RevisionNotFoundError):
            return HubError(
                f"{about}: the hub at {self.address} knows no such revision (404), expected a commit, branch or tag of "
                "that repository: check --revision",
                status,
            )
        if status == 404:
            return HubError(
                f"{about}: not found on the hub at {self.address} (404): name another repository with --repository", 404
            )
        if status is not None:
            return HubError(
                f"{about}: the hub at {self.address} answered with status {status} after {self.tries} tries: try again "
                "later; what was downloaded is kept",
                status,
            )
        if is_temporary(error):
            return HubError(
                f"{about}: the hub at {self.address} cannot be reached ({type(error).__name__}: {error}): check the "
                f"connection, proxy and HF_ENDPOINT, then run again; or {WITHOUT_INTERNET}"
            )
        return HubError(
            f"{about}: the answer of {self.address} could not be read ({type(error).__name__}: {error}), expected a "
            "hub: check HF_ENDPOINT and the proxy"
        )
