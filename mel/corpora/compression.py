"""Compressed streams, read in bounded memory whatever they hold or claim: xz, zstd, bz2, gzip."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from backports import zstd

# In the order of preference where the same records are there several times: the small ones first.
SUFFIXES = (".xz", ".zst", ".bz2", ".gz", "")
ERRORS = (OSError, lzma.LZMAError, zlib.error, zstd.ZstdError)

# What a stream may ask for: `xz -9` needs 65 MB, `zstd --long` 128 MB.
_MAX_XZ_BYTES = 256 << 20
_MAX_ZSTD_WINDOW_LOG = 27
_BUFFER = 1 << 16
_MAGIC = {".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd", ".bz2": b"BZh", ".gz": b"\x1f\x8b"}


def decompressed(file: io.BufferedReader[Any], suffix: str) -> BinaryIO:
    """The stream that was compressed; what it raises is in `ERRORS`, or EOFError where it is truncated.

    Args:
      file: the compressed data, from its beginning.
      suffix: one of `SUFFIXES`, which says how it is compressed; "" for not at all.
    """
    head = file.peek(len(_MAGIC[".xz"]))
    if suffix and not head:
        raise EOFError
    match suffix:
        case ".xz":
            return _buffered(file, lambda: lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES))
        case ".zst":
            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _MAX_ZSTD_WINDOW_LOG}
            return _buffered(file, lambda: zstd.ZstdDecompressor(options=options))
        case ".bz2":
            return _buffered(file, bz2.BZ2Decompressor)
        case ".gz":
            return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if found := [name for name, magic in _MAGIC.items() if head.startswith(magic)]:
        raise OSError(f"its name says that it is not compressed, but it is {found[0]}")
    return file


def _buffered(file: BinaryIO, new: Callable[[], Any]) -> BinaryIO:
    return io.BufferedReader(_Decompressed(file, new), buffer_size=_BUFFER)


class _Decompressed(io.RawIOBase):
    """Streams one after the other, and zeros between them, as one stream.

    The standard library's files do the same, but cannot be told how much memory a stream may ask
    for, and take whatever stands after the last stream for nothing.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], Any]):
        self._file, self._new = file, new
        self._stream = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while True:
            data = b""
            if self._stream.eof:
                if not (data := self._next_stream()):
                    return 0
                self._stream = self._new()
            elif self._stream.needs_input and not (data := self._file.read(_BUFFER)):
                raise EOFError
            if found := self._stream.decompress(data, len(buffer)):
                buffer[: len(found)] = found
                return len(found)

    def _next_stream(self) -> bytes:
        """The first bytes after the stream that ended that are not zero, b"" where there are none."""
        data = self._stream.unused_data.lstrip(b"\x00")
        while not data and (more := self._file.read(_BUFFER)):
            data = more.lstrip(b"\x00")
        return data
