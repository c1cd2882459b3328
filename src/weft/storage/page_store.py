"""Pages: a cache of tensors that cost a pass through a model, on disk and mapped into memory.

    <folder>/page-<SHA-256 of the bytes>.safetensors     many entries; tensors are named `<key>/<name>`

A page is written once and never changed. Its name proves its bytes, so nothing is flushed to the disk: a
page that a crash tore is found at its first use and removed. Several processes may share a folder: a page
appears whole, and one that another process removed counts as missing. What is not there is computed anew,
so a store must hold only what follows from its key to the last bit; then no number depends on it.
"""

import contextlib
import os
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from weft import storage
from weft.errors import ResourceError

PAGE = re.compile(r"page-([0-9a-f]{64})\.safetensors")
FREE_BYTES = 1 << 30  # left to what must be written; a store takes no more when this is all there is
LEFT_BEHIND = 3600.0  # seconds after which a temporary file is one that a killed process left
UNREADABLE = (OSError, RuntimeError, SafetensorError, ValueError)  # what a page raises, damaged or gone

Entry = dict[str, Tensor]


@dataclass
class _Page:
    """A page of the index: its entries' keys, and the entries themselves once its bytes are proven."""

    path: Path | None  # none: in memory only
    keys: tuple[str, ...]
    size: int
    proven: bool = False
    entries: dict[str, Entry] | None = None

    def load(self) -> dict[str, Entry]:
        """Key -> entry, as views of the mapped file.

        Raises:
            OSError, RuntimeError, SafetensorError, ValueError: if the file is gone or damaged.
        """
        if self.entries is None:
            assert self.path is not None
            if not (self.proven or storage.is_proven(self.path)):
                raise ValueError("its bytes are not those that were written")
            self.entries = _mapped(self.path)
            with contextlib.suppress(OSError):
                os.utime(self.path)  # other processes drop it later
        return self.entries


class PageStore:
    """Entries by key, at most `max_bytes` of them; whole pages leave, least recently used first.

    Args:
        folder: where pages lie; it is made when the first is written. None: in memory, an entry a page.
        max_bytes: of all pages together, those of other processes in the same folder included.
        warn: told of a damaged page, and once of a disk that refuses: then the rest stays in memory.
    """

    def __init__(self, folder: Path | None, max_bytes: int, warn: Callable[[str], None]) -> None:
        self.folder, self.max_bytes, self.warn = folder, max_bytes, warn
        self.bytes = 0
        self._pages: OrderedDict[str, _Page] = OrderedDict()
        self._page_of: dict[str, str] = {}
        self._refused: set[str] = set()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._page_of

    def get(self, key: str) -> Entry | None:
        """An entry's tensors, not to be changed: views of a mapped file, or those that were put."""
        name = self._page_of.get(key)
        if name is None:
            return None
        page = self._pages[name]
        try:
            entries = page.load()
        except UNREADABLE as error:
            self._forget(name)
            self._refuse(page.path, error)
            return None
        self._pages.move_to_end(name)
        return entries.get(key)

    def touch(self, key: str) -> None:
        """Let what will be needed leave last."""
        if key in self._page_of:
            self._pages.move_to_end(self._page_of[key])

    def put(self, entries: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Keep entries as one page, if it fits the budget.

        Args:
            entries: key -> name -> tensor, contiguous; no `/` in a name.
        """
        if not entries or self.max_bytes == 0:
            return
        if self.folder is not None:
            self._put_on_disk(entries)
        if self.folder is None:
            self._put_in_memory({key: dict(entry) for key, entry in entries.items() if key not in self})

    def refresh(self) -> None:
        """Learn which pages other processes wrote or removed."""
        found: dict[str, os.stat_result] = {}
        try:
            found.update(() if self.folder is None else _pages_in(self.folder))
        except FileNotFoundError:
            pass  # nobody wrote a page yet
        except OSError as error:
            self._give_up(f"cannot read {self.folder}: {error.strerror}")
        if self.folder is None:
            return
        for name in [name for name, page in self._pages.items() if page.path and name not in found]:
            self._forget(name)
        new = (name for name in found if name not in self._pages and name not in self._refused)
        for name in sorted(new, key=lambda name: (found[name].st_mtime_ns, name)):
            self._discover(name, found[name].st_size)

    def _discover(self, name: str, size: int) -> None:
        """Take a page into the index by its header alone."""
        assert self.folder is not None
        path = self.folder / name
        try:
            self._add(name, _Page(path, _keys(path), size))
        except UNREADABLE as error:
            self._refuse(path, error)

    def _put_on_disk(self, entries: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.refresh()
        data = save({f"{key}/{name}": one for key, entry in entries.items() for name, one in entry.items()})
        if self.folder is None or len(data) > self.max_bytes:
            return
        self._make_room(len(data))
        try:
            path = _publish(self.folder, data)
        except ResourceError as error:
            self._give_up(f"{error.cause} ({error.where})")
        else:
            self._add(path.name, _Page(path, tuple(entries), len(data), proven=True))

    def _put_in_memory(self, entries: Mapping[str, Entry]) -> None:
        for key, entry in entries.items():
            size = sum(one.nbytes for one in entry.values())
            if size <= self.max_bytes:
                self._make_room(size)
                self._add(key, _Page(None, (key,), size, entries={key: entry}))

    def _make_room(self, size: int) -> None:
        while self._pages and self.bytes + size > self.max_bytes:
            self._drop(next(iter(self._pages)))

    def _add(self, name: str, page: _Page) -> None:
        if name in self._pages:
            self._forget(name)
        self._pages[name] = page
        self._page_of.update(dict.fromkeys(page.keys, name))
        self.bytes += page.size

    def _forget(self, name: str) -> None:
        page = self._pages.pop(name)
        self.bytes -= page.size
        for key in page.keys:
            if self._page_of.get(key) == name:
                del self._page_of[key]

    def _drop(self, name: str) -> None:
        path = self._pages[name].path
        self._forget(name)
        if path is not None:
            self._remove(path)

    def _refuse(self, path: Path | None, error: Exception) -> None:
        gone = isinstance(error, FileNotFoundError)  # it may have been written again since
        if path is None or gone or not os.path.lexists(path):
            return  # another process removed it
        self.warn(f"{path}: {error}; the page is removed, and what it held is computed anew")
        self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove a page's file; tensors that were handed out stay valid."""
        try:
            storage.remove(path)
        except ResourceError:
            self._refused.add(path.name)  # it stays there, and is not taken up again

    def _give_up(self, cause: str) -> None:
        self.warn(f"{cause}; what was to be kept there is kept in memory")
        self.folder = None


def _pages_in(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Names of a folder's pages; on the way, what killed processes left behind is removed."""
    with os.scandir(folder) as listing:
        for one in listing:
            with contextlib.suppress(FileNotFoundError, ResourceError):
                if PAGE.fullmatch(one.name) and one.is_file(follow_symlinks=False):
                    yield one.name, one.stat(follow_symlinks=False)
                elif one.name.startswith(storage.TEMPORARY) and _is_old(one.stat(follow_symlinks=False)):
                    storage.remove(Path(one.path))


def _is_old(found: os.stat_result) -> bool:
    return time.time() - found.st_mtime > LEFT_BEHIND


def _publish(folder: Path, data: bytes) -> Path:
    """Write a page under its name.

    Raises:
        ResourceError: if the disk refuses, or has little left.
    """
    place = folder if folder.exists() else folder.parent
    if place.exists() and shutil.disk_usage(place).free < FREE_BYTES + len(data):
        raise ResourceError(f"less than {FREE_BYTES / 1e9:.1f} GB are free", where=str(folder))
    return storage.write_proven(folder, "page", ".safetensors", data, sync=False)


def _keys(path: Path) -> tuple[str, ...]:
    with safe_open(path, framework="pt") as file:
        return tuple(dict.fromkeys(_split(name)[0] for name in file.keys()))  # noqa: SIM118 - no mapping


def _mapped(path: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for full in file.keys():  # noqa: SIM118 - no mapping
                key, name = _split(full)
                entries.setdefault(key, {})[name] = file.get_tensor(full)
    except RuntimeError as error:  # so torch says that a file which was there a moment ago is gone
        raise FileNotFoundError(str(error)) from None
    return entries


def _split(full: str) -> tuple[str, str]:
    """Key and name of a page's tensor.

    Raises:
        ValueError: if it has no such name.
    """
    key, slash, name = full.rpartition("/")
    if not slash:
        raise ValueError(f"{full[:40]!r} is not the name of an entry")
    return key, name
