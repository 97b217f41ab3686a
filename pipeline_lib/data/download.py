"""Downloads that go on where they were cut, compared with the checksum that the publisher gives."""

import hashlib
import http.client
import logging
import re
import urllib.error
import urllib.request
from pathlib import Path

from pipeline_lib.exits import BadData, TryAgain
from pipeline_lib.records.progress import Progress
from pipeline_lib.records.store import alone

log = logging.getLogger(__name__)

BLOCK_BYTES = 2**20
TIMEOUT = 30  # seconds without a byte
CUT = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def fetch(url: str, target: Path, md5: str) -> Path:
    """Download `url` to `target` unless it is there; a part that an earlier attempt left is continued.

    Of two jobs that want the same file one downloads it, and the other waits.
    Raises BadData where the server cannot be reached or sends something else, TryAgain where the transfer is cut again
    and again (what came is kept), OSError where the disk is full.
    """
    with alone(target):
        return check(target, md5) if target.is_file() else _download(url, target, md5)


def _download(url: str, target: Path, md5: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    while not _transferred(url, part, f"get {target.name} by hand, put it to {target} and run again."):
        log.info("the download of %s was cut at %d bytes; going on", url, _size(part))
    try:
        check(part, md5)
    except BadData:
        part.unlink()
        raise BadData(f"{url} sent something else than the published file (its MD5 is not {md5}); run again.") from None
    return part.rename(target)


def check(path: Path, md5: str) -> Path:
    """`path`, if it has that MD5; raises BadData where it has not: it is cut short or something else."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != md5:
        raise BadData(f"{path} is cut short or not the published file (MD5 {found}, not {md5}); get it again.")
    return path


def _transferred(url: str, part: Path, by_hand: str) -> bool:
    """One attempt; whether all is there. False only where it came further than the one before."""
    before = _size(part)
    try:
        return _receive(url, part)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # all of it, or more, is there
            return True
        raise BadData(f"{url} cannot be downloaded (the server says {error.code} {error.reason}); {by_hand}") from None
    except CUT as error:
        if _size(part) > before:
            return False
        reason = getattr(error, "reason", error)
        if _size(part):
            raise TryAgain(
                f"the download of {url} is cut ({reason}); {_size(part)} bytes are kept, run again to go on."
            ) from None
        raise BadData(f"{url} cannot be reached ({reason}); {by_hand}") from None


def _receive(url: str, part: Path) -> bool:
    """Append what is missing to `part`, or all of it anew where the server cannot send a rest; raises CUT when cut."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        placed = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        rest = answer.status == http.client.PARTIAL_CONTENT and placed is not None and int(placed[1]) == start
        start = start if rest else 0
        total = start + int(answer.headers.get("Content-Length") or 0)
        progress = Progress(log, f"downloading {url}", "bytes", total, start)
        with part.open("ab" if rest else "wb") as stream:
            while data := answer.read(BLOCK_BYTES):
                stream.write(data)
                progress.update(stream.tell())
    if _size(part) < total:
        raise ConnectionError("the connection was closed early")
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
