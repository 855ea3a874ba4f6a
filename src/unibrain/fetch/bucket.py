"""What a public S3 bucket holds: names, sizes and entity tags, over plain HTTP and without credentials."""

from dataclasses import dataclass
from urllib.parse import quote
from xml.etree import ElementTree

from unibrain.errors import InputError
from unibrain.fetch.web import RemoteError, Web

__all__ = ["NSD_BUCKET", "NSD_URL", "Bucket", "RemoteFile", "head"]

NSD_BUCKET = "natural-scenes-dataset"
"""Name of NSD's bucket."""
NSD_URL = f"https://{NSD_BUCKET}.s3.amazonaws.com"
"""Where it is public."""

_LISTING_BYTES = 2**24
_PAGES = 1000


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes
    ----------
    url : str
    size : int
        Bytes.
    etag : str
        Entity tag without quotes: changes with the content. S3's is the MD5 of a file that was uploaded in one part.
    """

    url: str
    size: int
    etag: str


class Bucket:
    """A bucket that anybody may read.

    Parameters
    ----------
    web : Web
    endpoint : str, optional
        Another S3 server (a mirror), asked for ``endpoint/natural-scenes-dataset/...``; left out: NSD's own bucket.

    Raises
    ------
    InputError
        If the endpoint is no HTTP address.
    """

    def __init__(self, web: Web, endpoint: str | None = None) -> None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise InputError(f"the endpoint is {endpoint!r}, expected an address that starts with https:// or http://")
        self.web = web
        self.address = NSD_URL if endpoint is None else f"{endpoint.rstrip('/')}/{NSD_BUCKET}"

    def url(self, key: str) -> str:
        """Where a file is."""
        return f"{self.address}/{quote(key)}"

    def files(self, folder: str) -> dict[str, RemoteFile]:
        """List the files of a folder, not those of its subfolders.

        Parameters
        ----------
        folder : str
            Without a slash at its end.

        Returns
        -------
        dict of str to RemoteFile
            By key; empty if there is no such folder.

        Raises
        ------
        RemoteError
            If the bucket cannot be listed.
        """
        found = {}
        for page in self._pages(folder):
            for entry in page.iter(_CONTENTS):
                key, size, etag = (_text(entry, name) for name in ("Key", "Size", "ETag"))
                # Consoles make empty objects with a slash at the end to stand for a folder.
                if key.endswith("/"):
                    continue
                if not size.isdigit() or not etag.strip('"'):
                    raise self._unreadable(f"{key} without size or entity tag")
                found[key] = RemoteFile(self.url(key), int(size), etag.strip('"'))
        return found

    def folders(self, folder: str) -> list[str]:
        """List the names of a folder's subfolders."""
        prefixes = [_text(entry, "Prefix") for page in self._pages(folder) for entry in page.iter(_PREFIXES)]
        return sorted({prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes})

    def _pages(self, folder: str) -> list[ElementTree.Element]:
        pages: list[ElementTree.Element] = []
        parameters = {"list-type": "2", "prefix": f"{folder}/", "delimiter": "/"}
        for _ in range(_PAGES):
            page = self.web.patiently(lambda: self._page(dict(parameters)))
            pages.append(page)
            if _text(page, "IsTruncated") != "true":
                return pages
            token = _text(page, "NextContinuationToken")
            if not token or token == parameters.get("continuation-token"):
                break
            parameters["continuation-token"] = token
        raise self._unreadable("a list that does not end")

    def _page(self, parameters: dict[str, str]) -> ElementTree.Element:
        try:
            with self.web.ask("GET", f"{self.address}/", parameters=parameters) as response:
                body = self.web.text(response, _LISTING_BYTES)
        except RemoteError as error:
            if error.status == 404:
                raise RemoteError(
                    f"{self.address}: found no such bucket there (404), expected NSD's files: check --endpoint", 404
                ) from error
            raise
        # Entities need a document type; S3 sends none.
        if b"<!DOCTYPE" in body:
            raise self._unreadable("a page")
        try:
            root = ElementTree.fromstring(body)
        except ElementTree.ParseError as error:
            raise self._unreadable("an answer that is no XML") from error
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        if root.tag != "ListBucketResult":
            raise self._unreadable(f"<{root.tag}>")
        return root

    def _unreadable(self, found: str) -> RemoteError:
        return RemoteError(
            f"{self.address}: found {found}, expected S3's list of files: check the address and whether a proxy "
            "answers in its place"
        )


_CONTENTS, _PREFIXES = "Contents", "CommonPrefixes"


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(name) or ""


def head(web: Web, url: str) -> RemoteFile:
    """Ask for a file's size and entity tag.

    Raises
    ------
    RemoteError
        If it is not there, or the server does not say them.
    """

    def ask() -> RemoteFile:
        with web.ask("HEAD", url) as response:
            size, etag = response.headers.get("Content-Length", ""), response.headers.get("ETag", "")
        if not size.isdigit() or not etag.strip('"'):
            raise RemoteError(
                f"{url}: found no size or no entity tag, expected a file on an S3 server: check the address"
            )
        return RemoteFile(url, int(size), etag.strip('"'))

    return web.patiently(ask)
