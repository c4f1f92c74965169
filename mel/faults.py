"""What disks, memory and permissions do to a program, in sentences; a fault of the program has none."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

# What the system said, where {path} is what it spoke of, and the way out.
_SENTENCES = {
    errno.ENOSPC: "the disk is full ({path}): free some space",
    errno.EDQUOT: "the disk quota is used up ({path}): free some space",
    errno.EROFS: "{path} is on a read-only file system: use a folder that can be written to",
    errno.EACCES: "{path} belongs to somebody else, or its permissions forbid this: use a folder of your own",
    errno.EPERM: "{path} belongs to somebody else, or its permissions forbid this: use a folder of your own",
    errno.ENOTDIR: "{path} leads through a file where a folder has to be: choose another path",
    errno.EISDIR: "{path} is a folder, and a file has to be there: choose another path",
    errno.EEXIST: "{path} is in the way: choose another path, or move it",
    errno.ENOENT: "{path} is not there: make it, or choose another path",
    errno.ENAMETOOLONG: "{path} is too long a name for its file system: choose a shorter one",
    errno.ELOOP: "{path} is a circle of symbolic links: mend it",
    errno.EMFILE: "this process may not open more files ({path}): raise the limit (ulimit -n) or lower --workers",
    errno.ENFILE: "this machine cannot open more files ({path}): stop other programs",
    errno.EAGAIN: "this user may not start more processes: raise the limit (ulimit -u) or lower --workers",
    errno.EIO: "the disk reports an error at {path}: copy what can still be read to another one",
    errno.ESTALE: "the network file system has lost {path}: mount it again",
    errno.ENODEV: "{path} is on a file system that cannot map files into memory: use another one",
    errno.EFBIG: "{path} would be larger than its file system or a limit (ulimit -f) allows: use another one",
}
_FULL = errno.ENOSPC, errno.EDQUOT
# Libraries in C++ pass on what the system said in words only.
_WORDS = {os.strerror(number): number for number in _SENTENCES if number != errno.EAGAIN}
_WORDS[" requested and "] = errno.ENOSPC  # what NumPy says of an array of which the disk took a part
_OF_PROGRAMS = TypeError, LookupError, AttributeError, AssertionError, NameError
_ABSOLUTE = re.compile(r"""(?:^|[\s"'(=:])(/[^\s"':,)\]]+)""")
_OF_MEMORY = "RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "bad_alloc", "Unable to allocate"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no space left; libraries in C++ say so in words only."""
    return _number(error) in _FULL


def is_memory_short(error: BaseException) -> bool:
    """Whether an error says that the machine or an accelerator has too little memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, (RuntimeError, ValueError)) and any(words in str(error) for words in _OF_MEMORY)


def sentence_of(error: BaseException) -> str | None:
    """What the disk or the system did and what helps, without a full stop; None if `error` is no such fault.

    An error that a library raised from such a fault counts.
    """
    for each in _causes(error):
        number = _number(each)
        if number is not None:
            return _SENTENCES[number].format(path=_path(each))
    return None


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__] if each.__cause__ else []
            waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else []


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _SENTENCES else None
    if isinstance(error, _OF_PROGRAMS):
        return None
    return next((number for words, number in _WORDS.items() if words in str(error)), None)


def _path(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    if isinstance(name, (str, bytes)):
        return os.fsdecode(name)
    named = _ABSOLUTE.search(str(error))
    return named[1] if named else "a file"
