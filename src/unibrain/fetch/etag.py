"""Checking a downloaded file against its entity tag.

S3's entity tag of a file that was uploaded at once is the MD5 of its content. Of one that was uploaded in N parts, it
is the MD5 of the parts' MD5s, then ``-N``; the parts' size is not in it. S3 tells a part's size when asked for
``?partNumber=1``; where a server does not, the sizes that upload tools use are tried.
"""

import hashlib
import re
from pathlib import Path

from unibrain.errors import InputError
from unibrain.fetch.bucket import RemoteFile
from unibrain.fetch.web import RemoteError, Web

__all__ = ["DamagedError", "md5_of_parts", "verify"]

_MD5 = re.compile(r"[0-9a-f]{32}")
_MULTIPART = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,4})")
_MIB = 2**20
# Default part sizes of upload tools, in MiB.
_COMMON = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 500, 512, 1024)
_BLOCK = 2**20


class DamagedError(InputError):
    """A file whose content is not that of its entity tag."""


def md5_of_parts(path: Path, part_size: int | None) -> str:
    """Compute S3's entity tag of a file.

    Parameters
    ----------
    path : pathlib.Path
    part_size : int or None
        Bytes; None for a file that was uploaded at once.

    Returns
    -------
    str
        32 hexadecimal digits, followed by ``-N`` for N parts.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "file"
    >>> _ = path.write_bytes(b"abc")
    >>> md5_of_parts(path, None)
    '900150983cd24fb0d6963f7d28e17f72'
    >>> md5_of_parts(path, 2)[-2:]
    '-2'
    """
    parts = []
    with path.open("rb") as file:
        while True:
            part = hashlib.md5(usedforsecurity=False)
            left = part_size
            while block := file.read(_BLOCK if left is None else min(_BLOCK, left)):
                part.update(block)
                left = None if left is None else left - len(block)
            parts.append(part)
            if left is None or left > 0 or file.tell() == path.stat().st_size:
                break
    if part_size is None:
        return parts[0].hexdigest()
    whole = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(parts)}"


def verify(web: Web, path: Path, remote: RemoteFile) -> str:
    """Check a file's size and content.

    Parameters
    ----------
    web : Web
    path : pathlib.Path
    remote : RemoteFile

    Returns
    -------
    str
        How: ``"size and MD5"``, ``"size and MD5 of parts of N bytes"``, or ``"size only"`` where the entity tag is of
        another kind or the size of its parts cannot be found.

    Raises
    ------
    DamagedError
        If size or content is another one.
    """
    size = path.stat().st_size
    if size != remote.size:
        raise DamagedError(_sentence(remote, f"{size:,} bytes", f"{remote.size:,}"))
    if _MD5.fullmatch(remote.etag):
        found = md5_of_parts(path, None)
        if found != remote.etag:
            raise DamagedError(_sentence(remote, f"content with the MD5 {found}", f"{remote.etag} (its entity tag)"))
        return "size and MD5"
    multipart = _MULTIPART.fullmatch(remote.etag)
    if multipart is None:
        return "size only"
    parts = int(multipart[2])
    # One part is the whole file, whatever the tool's part size was.
    told = max(size, 1) if parts == 1 else _told_part_size(web, remote, parts)
    for part_size in [told] if told is not None else _candidates(size, parts):
        found = md5_of_parts(path, part_size)
        if found == remote.etag:
            return f"size and MD5 of parts of {part_size:,} bytes"
        if told is not None:
            raise DamagedError(_sentence(remote, f"content with the MD5 {found} of its parts", remote.etag))
    return "size only"


def _sentence(remote: RemoteFile, found: str, expected: str) -> str:
    return (
        f"{remote.url}: found {found} after the download, expected {expected}: the file was thrown away, run again; "
        "if it stays so, what the server holds is damaged"
    )


def _parts(size: int, part_size: int) -> int:
    return max(1, -(-size // part_size))


def _candidates(size: int, parts: int) -> list[int]:
    """Part sizes that make so many parts: the common ones, then any whole number of MiB if few are possible."""
    common = [mib * _MIB for mib in _COMMON if _parts(size, mib * _MIB) == parts]
    if not common:
        least, most = -(-size // (parts * _MIB)), size // ((parts - 1) * _MIB)
        possible = [mib * _MIB for mib in range(max(1, least), most + 1) if _parts(size, mib * _MIB) == parts]
        common = possible if len(possible) <= 4 else []
    return common


def _told_part_size(web: Web, remote: RemoteFile, parts: int) -> int | None:
    """Ask for the first and the last part's size; None unless they say that all parts but the last are equal."""
    try:
        first, last = (_part(web, remote, number, parts) for number in (1, parts))
    except RemoteError:
        return None
    if first is None or last is None or not 0 < first <= remote.size:
        return None
    return first if (parts - 1) * first + last == remote.size else None


def _part(web: Web, remote: RemoteFile, number: int, parts: int) -> int | None:
    with web.ask("HEAD", remote.url, parameters={"partNumber": str(number)}) as response:
        length = response.headers.get("Content-Length", "")
        # A server that does not know the question answers about the whole file, without this header.
        told = response.headers.get("x-amz-mp-parts-count") == str(parts)
    return int(length) if told and length.isdigit() else None
