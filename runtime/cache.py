"""The cache of machine code: in memory, then on disk by content, then the compiler.

An entry's name is the hash of what was compiled and the hash of what compiled it (weft's code generator, llvmlite,
the CPU), so an entry is right wherever it is found, and file times mean nothing. Entries are written
whole under another name and moved into place; they carry a checksum. A cache that cannot be read or written costs a
warning and compile time, never a result."""
from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..backends.native.locks import ForkSafeLock
from ..ir.errors import CacheWarning
from . import seam
from .side_by_side import side_by_side

_MAGIC = b"weft code 1\n"
_DIGEST = 32
_LOCK_TIMEOUT = 60.0
_GENERATOR = Path(__file__).parent.parent / "backends" / "native"


class Source(Protocol):
    """What is compiled; see `LlvmSource` in `backends/llvm_source.py`. By its text machine code is found."""

    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class Code:
    """One function in memory, which stays there as long as this record does.

    Attributes:
        address: where it starts.
        key: by which it is found.
        origin: `memory`, `disk` or `compiled`.
        reason: why it had to be compiled, "" when it had not.
        handle: what keeps the code in memory.
    """

    address: int
    key: str
    origin: str
    reason: str = ""
    handle: Any = field(default=None, repr=False, compare=False)


@dataclass
class Statistics:
    """What the cache has done in this process; `reasons` counts why things were compiled."""

    memory: int = 0
    disk: int = 0
    compiled: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def count(self, code: Code) -> None:
        """Adds one look-up."""
        setattr(self, code.origin, getattr(self, code.origin) + 1)
        if code.reason:
            self.reasons[code.reason] = self.reasons.get(code.reason, 0) + 1


@functools.cache
def environment() -> Mapping[str, str]:
    """What machine code depends on besides its source."""
    generator = hashlib.sha256()
    for path in sorted(_GENERATOR.rglob("*.py")):
        generator.update(path.read_bytes())
    return {
        "weft's code generator": generator.hexdigest()[:16],
        "llvmlite": seam.version("llvmlite"),
        "cpu": seam.cpu().identity() or seam.target().identity(),
    }


def default_folder() -> Path | None:
    """`WEFT_CACHE_DIR`, the user's cache directory without it; None (memory only) when the variable is empty."""
    named = os.environ.get("WEFT_CACHE_DIR")
    if named is None:
        return Path(seam.platformdirs().user_cache_dir("weft", appauthor=False)) / "code"
    return Path(named) / "code" if named else None


class DiskCache:
    """Objects by content in a folder; None as folder keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._complained = False

    def fetch(self, key: str, build: Callable[[], bytes]) -> tuple[bytes, str, str]:
        """(object code, origin, reason): from the disk, or built and stored."""
        data, reason = self._read(key)
        if data is not None:
            return data, "disk", ""
        with self._locked(key):
            data, _ = self._read(key)                       # another process may have built it meanwhile
            if data is not None:
                return data, "disk", ""
            data = build()
            self.put(key, data)
        return data, "compiled", reason

    def get(self, key: str) -> bytes | None:
        """The data of an entry, if there is one."""
        return self._read(key)[0]

    def _path(self, key: str) -> Path | None:
        return self.folder and self.folder / key[:2] / f"{key}-{_environment_digest()}.o"

    def _read(self, key: str) -> tuple[bytes | None, str]:
        """The object, or why there is none."""
        path = self._path(key)
        if path is None:
            return None, "the disk cache is off"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None, self._absent(path, key)
        except OSError as error:
            self._complain(f"cannot read {path}: {error}")
            return None, "the cache directory cannot be read"
        data = _unpack(content)
        if data is None:
            warnings.warn(f"the cache entry {path} is corrupt; it is compiled again", CacheWarning, stacklevel=2)
            return None, "the cache entry was corrupt"
        return data, ""

    @staticmethod
    def _absent(path: Path, key: str) -> str:
        """Whether the code is new, or was compiled by or for something else."""
        for other in sorted(path.parent.glob(f"{key}-*.o")):
            try:
                theirs = _environment_of(other.read_bytes())
            except OSError:
                continue
            ours = environment()
            changed = [f"{name} ({theirs[name]} before, {ours[name]} now)" for name in ours
                       if name in theirs and theirs[name] != ours[name]]
            if changed:
                return "compiled before with another " + ", ".join(changed)
        return "not compiled before"

    def put(self, key: str, data: bytes) -> None:
        """Makes or replaces an entry."""
        path = self._path(key)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_pack(data))
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            self._complain(f"cannot write {path}: {error}")

    def _complain(self, what: str) -> None:
        """Once a process: a cache that does not work is slow, not wrong."""
        if not self._complained:
            self._complained = True
            warnings.warn(f"{what}; weft goes on without the disk cache", CacheWarning, stacklevel=3)

    def _locked(self, key: str) -> _FileLock:
        """Processes that need the same code compile it once; there are 256 lock files, by the key's first byte."""
        return _FileLock(self.folder and self.folder / key[:2] / "lock")


class _FileLock:
    """A lock between processes that gives way: when it cannot be had, work goes on without it."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, None

    def __enter__(self) -> None:
        if self._path is None:
            return
        module = seam.filelock()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = module.FileLock(str(self._path), timeout=_LOCK_TIMEOUT)
            lock.acquire()
            self._lock = lock
        except (OSError, module.Timeout):
            self._lock = None

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.release()


@functools.cache
def _environment_digest() -> str:
    return hashlib.sha256(json.dumps(environment()).encode()).hexdigest()[:16]


def _pack(data: bytes) -> bytes:
    body = json.dumps(environment()).encode() + b"\n" + data
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpack(content: bytes) -> bytes | None:
    """The object in an entry; None when a byte of it is not as it was written."""
    start = len(_MAGIC) + _DIGEST
    body = content[start:]
    if content[:len(_MAGIC)] != _MAGIC or content[len(_MAGIC):start] != hashlib.sha256(body).digest():
        return None
    return body[body.index(b"\n") + 1:]


def _environment_of(content: bytes) -> Mapping[str, str]:
    """What an entry was compiled with; empty when it is corrupt."""
    if _unpack(content) is None:
        return {}
    body = content[len(_MAGIC) + _DIGEST:]
    return json.loads(body[:body.index(b"\n")])


class CodeCache:
    """Machine code by content, in memory and on disk; any thread may use it, and so may a forked child."""

    def __init__(self, folder: Path | None) -> None:
        self.disk = DiskCache(folder)
        self.statistics = Statistics()
        self._known: dict[str, Code] = {}
        self._lock = ForkSafeLock()

    def kernels(self, sources: Sequence[Source]) -> list[Code]:
        """The code of kernels."""
        keys = [_digest("kernel", source.text) for source in sources]
        by_key = dict(zip(keys, sources, strict=True))
        with self._lock:
            missing = {
                key: functools.partial(self.disk.fetch, key, functools.partial(_compile, source, _symbol(key)))
                for key, source in by_key.items() if key not in self._known
            }
            return self._loaded(keys, dict(zip(missing, side_by_side([*missing.values()]), strict=True)))

    def known(self, keys: Sequence[str]) -> list[Code] | None:
        """The code of kernels by their keys; None when some of it would have to be compiled."""
        with self._lock:
            found = {key: self.disk.get(key) for key in dict.fromkeys(keys) if key not in self._known}
            objects = {key: (data, "disk", "") for key, data in found.items() if data is not None}
            return self._loaded(keys, objects) if len(objects) == len(found) else None

    def _loaded(self, keys: Sequence[str], objects: Mapping[str, tuple[bytes, str, str]]) -> list[Code]:
        """The code of `keys`, after `objects`, (object code, origin, reason) by key, were loaded together."""
        fresh = {}
        if objects:
            handle = seam.loader().load_objects([data for data, _, _ in objects.values()])
            fresh = {key: Code(handle.address(_symbol(key)), key, origin, reason, handle)
                     for key, (_, origin, reason) in objects.items()}
        self._known.update({key: replace(code, origin="memory", reason="") for key, code in fresh.items()})
        codes = [fresh.pop(key, self._known[key]) for key in keys]
        for code in codes:
            self.statistics.count(code)
        return codes

    @property
    def lasts(self) -> bool:
        """Whether there is a disk cache."""
        return self.disk.folder is not None

    def stored(self, identity: str) -> bytes | None:
        """What was stored under `identity`, by this process or another one."""
        return self.disk.get(_digest("stored", identity))

    def store(self, identity: str, data: bytes) -> None:
        """Stores data that `identity` is all that makes."""
        self.disk.put(_digest("stored", identity), data)

    def module(self, identity: str, build: Callable[[], bytes]) -> Any:
        """The handle, to be kept, of other code, such as the executor's; `identity` is all that makes its content."""
        data, origin, reason = self.disk.fetch(_digest("module", identity), build)
        with self._lock:
            self.statistics.count(Code(0, "", origin, reason))
            return seam.loader().load_object(data)


def _compile(source: Source, symbol: str) -> bytes:
    return seam.compiler().compile_kernel(source, symbol)


def _digest(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest()[:40]


def _symbol(key: str) -> str:
    return f"weft_{key}"


@functools.cache
def code_cache() -> CodeCache:
    """The cache of this process."""
    return CodeCache(default_folder())
