"""A lake in object storage: paths that are URLs, and behave as `pathlib` has them.

    locate("s3://bucket/lake") / "sessions" ──▶ listed, opened, measured, replaced: an object appears whole, or not
    locate("./data")                        ──▶ a Path, as ever

Whatever reads a lake takes the one or the other. pyarrow reaches S3 and what speaks its language, Google's and Azure's
storage and HDFS by itself; `fsspec+<protocol>://…` is any file system of fsspec that is installed. Who asks is known
from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE`, a role; `AWS_ENDPOINT_URL` is where):
a URL that carries a secret is refused.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager, suppress
from functools import total_ordering
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, Self, cast
from urllib.parse import SplitResult, urlsplit

from mdcapture.errors import StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader

    import pyarrow as pa
    import pyarrow.fs as pafs

__all__ = ["Location", "RemotePath", "locate", "shown_url"]

_SECRET: Final = re.compile(r"(?i)(^|[&_])(secret|token|password|key|sas|signature|sig)[^&=]*=")
_DATABASE: Final = re.compile("postgres(ql)?://")
_NETWORK: Final = "NETWORK_CONNECTION"
_NEXT_STEP: Final = {
    "NO_SUCH_BUCKET": "create the bucket, or name another one",
    "ACCESS_DENIED": "check the credentials in the environment, and what they may do there",
    "INVALID_ACCESS_KEY_ID": "check the credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE)",
    "SIGNATURE_DOES_NOT_MATCH": "check the credentials in the environment (AWS_SECRET_ACCESS_KEY)",
    _NETWORK: "check the network and AWS_ENDPOINT_URL, and try again",
}
_AWS: Final = re.compile(r"AWS Error (\w+) during \w+ operation: (.*?)\s*(\(Request ID.*|; Details:.*)?$", re.DOTALL)


class _Stat(NamedTuple):
    """What can be told of an object: the part of `os.stat_result` that matters here."""

    st_size: int
    st_mtime_ns: int
    st_ino: int = 0


class Location(Protocol):
    """Where a lake, or something of it, is: what a `Path` and a `RemotePath` have in common."""

    @property
    def name(self) -> str:
        """The last part."""

    @property
    def stem(self) -> str:
        """The last part without its suffix."""

    def __truediv__(self, name: str, /) -> Self: ...

    def __lt__(self, other: Self, /) -> bool: ...

    def relative_to(self, other: Self, /) -> PurePath:
        """The rest of the way from another place."""

    def stat(self) -> Stat:
        """Size and time of what is there."""

    def exists(self) -> bool:
        """Whether there is anything."""

    def is_file(self) -> bool:
        """Whether there is a file, or an object."""

    def is_dir(self) -> bool:
        """Whether there can be anything below."""

    def glob(self, pattern: str, /) -> Iterable[Self]:
        """What is below, its way from here fitting part by part."""

    def rglob(self, pattern: str, /) -> Iterable[Self]:
        """What is anywhere below, its name fitting."""

    def open(self, mode: Literal["rb"], /) -> BufferedReader:
        """Open it for reading at any place."""

    def read_bytes(self) -> bytes:
        """All of it."""


class Stat(Protocol):
    """What is asked of an `os.stat_result`."""

    @property
    def st_size(self) -> int:
        """Bytes."""

    @property
    def st_mtime_ns(self) -> int:
        """When it was written; 0 where that is not known."""

    @property
    def st_ino(self) -> int:
        """Which it is; 0 where that is not known."""


@total_ordering
class RemotePath:
    """A path in object storage. `locate` makes the first one, `/` all others.

    Args:
        filesystem: Who reaches it.
        path: Its path there.
        url: What people call it.
        info: What a listing said of it just now.
    """

    def __init__(self, filesystem: pafs.FileSystem, path: str, url: str, info: pafs.FileInfo | None = None) -> None:
        self.filesystem = filesystem
        self.path = path
        self._url = url
        self._info = info

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.filesystem, f"{self.path}/{name}", f"{self._url}/{name}")

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"RemotePath({self._url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self._url == other._url

    def __lt__(self, other: RemotePath) -> bool:
        return self._url < other._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __reduce__(self) -> tuple[object, ...]:
        return RemotePath, (self.filesystem, self.path, self._url)

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self.path).stem

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        """The rest of the way from another path."""
        return PurePosixPath(self.path).relative_to(other.path)

    def stat(self) -> _Stat:
        """Size and time of the object.

        Raises:
            FileNotFoundError: There is none.
        """
        info = self._look()
        if not info.is_file:
            raise FileNotFoundError(f"there is no {self}")
        return _Stat(info.size, info.mtime_ns or 0)

    def exists(self) -> bool:
        """Whether there is an object, or anything below."""
        return str(self._look().type.name) != "NotFound"

    def is_file(self) -> bool:
        """Whether there is an object."""
        return bool(self._look().is_file)

    def is_dir(self) -> bool:
        """Whether there is anything below."""
        return str(self._look().type.name) == "Directory"

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """The objects below whose way from here fits, part by part."""
        depth = len(PurePosixPath(pattern).parts)
        for path in self.rglob("*"):
            way = path.relative_to(self)
            if len(way.parts) == depth and way.match(pattern):
                yield path

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """The objects anywhere below whose names fit."""
        import pyarrow.fs as pafs

        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        with self._asked("can't list"):
            found = self.filesystem.get_file_info(selector)
        base = PurePosixPath(self.path)
        for info in found:
            way = PurePosixPath(info.path).relative_to(base)
            if info.is_file and way.match(pattern):
                yield RemotePath(self.filesystem, info.path, f"{self._url}/{way}", info)

    def open(self, mode: Literal["rb"] = "rb") -> BufferedReader:  # noqa: ARG002  # there is no other
        """Open the object for reading at any place.

        Raises:
            FileNotFoundError: There is none.
            StorageError: Whoever keeps it refused.
        """
        with self._asked("can't read"):
            return cast("BufferedReader", self.filesystem.open_input_file(self.path))

    def read_bytes(self) -> bytes:
        """All of the object; errors as those of `open`."""
        with self._asked("can't read"), self.filesystem.open_input_stream(self.path) as stream:
            content: bytes = stream.read()
            return content

    def replace_with(self, chunks: Iterable[bytes]) -> None:
        """Put an object here, in the place of the one that there may be: it appears when all of it has arrived.

        Raises:
            StorageError: Whoever keeps it refused (`errno` is EACCES, as in all such errors here), or it failed.
        """
        with self._asked("can't write"):
            stream = self.filesystem.open_output_stream(self.path)
            try:
                for chunk in chunks:
                    stream.write(chunk)
                stream.close()
            except BaseException:
                self._withdraw(stream)
                raise

    def unlink(self) -> None:
        """Remove the object."""
        with self._asked("can't remove"):
            self.filesystem.delete_file(self.path)

    def _withdraw(self, stream: pa.NativeFile) -> None:
        """Leave no half an object: pyarrow can't give a stream up, and its end would complete it."""
        with suppress(OSError):
            stream.close()
            self.filesystem.delete_file(self.path)

    def _look(self) -> pafs.FileInfo:
        if self._info is None:
            with self._asked("can't look at"):
                return self.filesystem.get_file_info(self.path)
        return self._info

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Turn what object storage says into errors that say what to do."""
        import pyarrow as pa

        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except (OSError, pa.ArrowException) as error:
            said = _AWS.search(str(error))
            kind, reason = (said[1], said[2]) if said else ("", str(error))
            step = _NEXT_STEP.get(kind, "check the address and try again")
            refused = kind in _NEXT_STEP.keys() - {_NETWORK}
            raise StorageError(errno.EACCES if refused else None, f"{what} {self}: {reason}; {step}") from None


def _is_remote(text: str | Path | RemotePath) -> bool:
    """Whether this names something in object storage: it is a URL, and not one of a folder."""
    return isinstance(text, RemotePath) or ("://" in str(text) and not str(text).startswith("file://"))


def shown_url(url: str) -> str:
    """A URL as it may be shown: without who asks, and without its options; a folder as it is.

    Raises:
        UsageError: It holds a secret.
    """
    if not _is_remote(url):
        return url
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    if parts.password is not None or _SECRET.search(parts.query):
        raise UsageError(
            f"the URL of {shown} holds a secret, which whoever lists processes could read: put it into the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role), and out of the URL"
        )
    return shown


def locate(text: str | Path | RemotePath) -> Path | RemotePath:
    """What a user calls a lake, as a path.

    Args:
        text: A folder, or a URL.

    Raises:
        UsageError: The URL holds a secret, or nothing knows how to reach it.
    """
    if isinstance(text, RemotePath):
        return text
    if not _is_remote(text):
        return Path(str(text).removeprefix("file://")).expanduser().resolve()
    import pyarrow as pa
    import pyarrow.fs as pafs

    shown = shown_url(str(text))
    if _DATABASE.match(shown):
        raise UsageError(
            f"{shown} is a database, and this works on a lake's files: name a folder or a bucket, such as the one that "
            "was published from"
        )
    try:
        filesystem, path = pafs.FileSystem.from_uri(_with_options(urlsplit(str(text))))
    except (pa.ArrowException, OSError, ValueError, ImportError) as error:
        raise UsageError(
            f"{shown} can't be reached: {str(error).splitlines()[0]}; write s3://bucket/prefix, gs://, abfs://, or "
            "fsspec+PROTOCOL:// for a file system of fsspec"
        ) from None
    if not path.strip("/"):
        raise UsageError(f"{shown} names no bucket: write s3://bucket/prefix")
    return RemotePath(filesystem, path.rstrip("/"), shown)


def _with_options(parts: SplitResult) -> str:
    """The URL as pyarrow takes it; an object that fits into one request is sent by one, not by three."""
    options = [parts.query, "allow_delayed_open=true"] if parts.scheme == "s3" else [parts.query]
    return parts._replace(query="&".join(filter(None, options))).geturl()
