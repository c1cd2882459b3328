"""The index of a bank in SQLite: which task lies where, from which generation until which.

SQLite writes this file itself, beside `storage.durable`: one add among a million must not write a million
entries anew. Its log (WAL) is flushed at every commit (`synchronous = FULL`), so a commit is whole and lasts,
or it never was; rows and shared arrays are on the disk before. Entries are never changed but for the
generation at which they end. Each has a check number over all that it says. Loads without torch.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weft import storage
from weft.bank.lines import SIGN, Line, State, key_of
from weft.bank.manifest import RESTORE, Manifest
from weft.errors import ArtifactError, ResourceError

FIELDS = "name, since, shard, place, bytes, grp, definition, run, metrics, sha256, chk"
KINDS: tuple[Any, ...] = (str, int, int, int, int, int, int, int, str, bytes, int)  # of their values
ALIVE = "since <= ? AND (until IS NULL OR until > ?)"
WORDS = 4096  # texts that are kept in memory
BLOCK = 10_000  # names that a search looks through before threads take turns: some milliseconds


class Index:
    """The index of one bank.

    Args:
        path: the file.
        manifest: of the bank.
        writes: whether it is opened to be changed.

    Raises:
        ArtifactError: if it is lost, damaged, of another bank, or older than the manifest.
    """

    def __init__(self, path: Path, manifest: Manifest, *, writes: bool = False) -> None:
        self.path, self._lock = path, threading.Lock()
        self._db = _connected(path, writes)
        self._texts: dict[int, str] = {}
        self.state = self.newest()
        if self.state.bank != manifest.bank or self.state.generation < manifest.generation:
            told = f"generation {self.state.generation} of bank {self.state.bank[:8]}"
            wanted = f"generation {manifest.generation} or later of bank {manifest.bank[:8]}"
            cause = f"the index is lost or stale: it is {told}, and should be {wanted}"
            raise ArtifactError(cause, where=str(path), fix=RESTORE, code="A15")

    def newest(self) -> State:
        """What holds now.

        Raises:
            ArtifactError: if that is not what was written.
        """
        row = self._one("SELECT bank, generation, tasks, total, sizes, chk FROM state")
        try:
            found = State(row[0], row[1], row[2], int(row[3]), json.loads(row[4]))
            if found.texts != tuple(row):
                raise ValueError("its state was changed")
        except (TypeError, ValueError) as error:
            raise _damaged(self.path, str(error)) from None
        return found

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def __del__(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Say of a fault of SQLite where it happened, and what to do.

        Raises:
            ArtifactError: if the file is damaged.
            ResourceError: if the disk refuses.
        """
        try:
            yield
        except sqlite3.OperationalError as error:
            raise refused(self.path, error) from None
        except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
            raise _damaged(self.path, str(error)) from None

    def find(self, name: str, generation: int) -> tuple[Line, int] | None:
        """What is said of a task in a generation, and the check number beside it; none: no such task."""
        where = f"WHERE name = ? AND {ALIVE}"
        return next(self.lines(where, (name, generation, generation)), None)

    def lines(self, where: str, values: tuple[object, ...] = ()) -> Iterator[tuple[Line, int]]:
        """What is said of tasks, each with its check number.

        Args:
            where: conditions and order, in SQL.
            values: for its question marks.
        """
        for row in self.rows(f"SELECT {FIELDS} FROM tasks {where}", values):
            with self.faults():
                yield self._line(row)

    def living(self, generation: int, order: str = "") -> Iterator[tuple[Line, int]]:
        """What is said of all tasks of a generation, each with its check number.

        Args:
            generation: its number.
            order: fields, in SQL; empty: as they lie.
        """
        ordered = f" ORDER BY {order}" if order else ""
        return self.lines(f"WHERE {ALIVE}{ordered}", (generation, generation))

    def _line(self, row: Any) -> tuple[Line, int]:
        """What a row says. What damage made another kind of value is an empty one, and the check says so."""
        length = row[4] if row[4] is None or isinstance(row[4], int) else 0
        values = [one if isinstance(one, kind) else kind() for one, kind in zip(row, KINDS, strict=True)]
        name, since, shard, place, _, group, definition, run, metrics, sha256, check = values
        shard, group, definition, run = map(self._word, (shard, group, definition, run))
        line = Line(name, since, shard, place, length, group, definition, run, metrics, sha256)
        return line, check % SIGN

    def names(self, generation: int, *, prefix: str, after: str, limit: int, group: str | None) -> list[str]:
        """Names of tasks in order; see `Snapshot.names`."""
        where, values = ["name > ?", "name >= ?", ALIVE], [after, prefix, generation, generation]
        if prefix:
            where.append("name < ?")
            values.append(_behind(prefix))
        if group is not None:
            where.append("grp = ?")
            values.append(self.number(group))
        asked = f"SELECT name FROM tasks WHERE {' AND '.join(where)} ORDER BY name LIMIT ?"
        return [name for (name,) in self.rows(asked, (*values, limit))]

    def before(self, generation: int, name: str, limit: int) -> list[str]:
        """The names that stand before one, nearest first."""
        asked = f"SELECT name FROM tasks WHERE name < ? AND {ALIVE} ORDER BY name DESC LIMIT ?"
        return [one for (one,) in self.rows(asked, (name, generation, generation, limit))]

    def holding(self, generation: int, text: str, limit: int) -> list[str]:
        """Names in which a text stands, whatever its case, in order; all names are looked through."""
        block = "SELECT name FROM tasks WHERE name > ? ORDER BY name LIMIT 1 OFFSET ?"
        within = f"name > ? AND name <= ? AND name LIKE ? ESCAPE '\\' AND {ALIVE} ORDER BY name LIMIT ?"
        plain = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        found: list[str] = []
        after, more = "", True
        while more and len(found) < limit:
            end = self._one(block, (after, BLOCK - 1))
            last, more = (end[0], True) if end else (_behind(""), False)
            values = (after, last, f"%{plain}%", generation, generation, limit - len(found))
            found += [name for (name,) in self.rows(f"SELECT name FROM tasks WHERE {within}", values)]
            after = last
        return found

    def rows(self, asked: str, values: tuple[object, ...] = ()) -> Iterator[Any]:
        """Rows of a query, a thousand at a time, so that threads take turns."""
        with self._lock, self.faults():
            cursor = self._db.execute(asked, values)
            found = cursor.fetchmany(1000)
        while found:
            yield from found
            with self._lock, self.faults():
                found = cursor.fetchmany(1000) if len(found) == 1000 else []

    def number(self, text: str) -> int:
        """The number by which a text is known; 0: it is not known."""
        found = self._one("SELECT id FROM words WHERE key = ? AND text = ?", (key_of(text), text))
        return int(found[0]) if found else 0

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file, and texts that are not those that were written."""
        try:
            found = [str(one) for (one,) in self.rows("PRAGMA integrity_check")]
            texts = self.rows("SELECT id, key, text FROM words")
            wrong = [f"text {one} was changed" for one, key, text in texts if key != key_of(str(text))]
        except (ArtifactError, ResourceError) as error:
            return [error.cause]
        return [one for one in found if one != "ok"] + wrong

    def _one(self, asked: str, values: tuple[object, ...] = ()) -> Any:
        return next(self.rows(asked, values), None)

    def _word(self, number: int) -> str:
        """The text of a number, empty where damage took it; the last ones are kept in memory."""
        if number not in self._texts:
            found = self._one("SELECT text FROM words WHERE id = ?", (number,))
            if len(self._texts) >= WORDS:
                self._texts.clear()
            self._texts[number] = str(found[0]) if found else ""
        return self._texts[number]


def _connected(path: Path, writes: bool) -> sqlite3.Connection:
    """The file as SQLite opens it; one in a folder that may not be written is read as it stands."""
    try:
        storage.check_plain(path)  # to open it would drop SQLite's locks of this process when it is closed
    except FileNotFoundError:
        raise ArtifactError("the index is lost", where=str(path), fix=RESTORE, code="A15") from None
    log = path.with_name(f"{path.name}-wal")
    settled = not (log.exists() and log.stat().st_size) and not os.access(path.parent, os.W_OK)
    mode = "mode=rw" if writes else "immutable=1" if settled else "mode=ro"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30,
    )
    try:
        for pragma in ("synchronous = FULL", "trusted_schema = OFF", "cell_size_check = ON"):
            db.execute(f"PRAGMA {pragma}")
        db.text_factory = lambda data: data.decode(errors="replace")  # of damaged texts: their check says so
        db.execute(f"PRAGMA cache_size = -{65536 if writes else 8192}")
    except sqlite3.DatabaseError as error:
        db.close()
        raise _damaged(path, str(error)) from None
    return db


def refused(path: Path, error: sqlite3.Error) -> ResourceError:
    """What is said where SQLite cannot read or write its file."""
    fix = "see to the disk and the permissions, and run the same command again"
    return ResourceError(f"the index: {error}", where=str(path), fix=fix, code="R08")


def _damaged(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"the index is damaged: {why}", where=str(path), fix=RESTORE, code="A15")


def _behind(prefix: str) -> str:
    """The least text that stands behind all that begin with the prefix, in the order of code points."""
    return prefix + "\U0010ffff" * 2
