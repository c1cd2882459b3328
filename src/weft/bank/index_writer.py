"""Changes of the index: only within `changes`, and only by the one process that holds the bank."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weft import storage
from weft.bank.index import FIELDS, WORDS, Index, refused
from weft.bank.lines import SIGN, Line, State, key_of
from weft.bank.manifest import Manifest

SCHEMA = """
CREATE TABLE state (
  bank TEXT NOT NULL, generation INTEGER NOT NULL, tasks INTEGER NOT NULL, total TEXT NOT NULL,
  sizes TEXT NOT NULL, chk INTEGER NOT NULL
);
CREATE TABLE words (id INTEGER PRIMARY KEY, key INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE tasks (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER,
  shard INTEGER NOT NULL, place INTEGER NOT NULL, bytes INTEGER, grp INTEGER NOT NULL,
  definition INTEGER NOT NULL, run INTEGER NOT NULL, metrics TEXT NOT NULL,
  sha256 BLOB NOT NULL, chk INTEGER NOT NULL
);
CREATE INDEX words_by_key ON words (key);
CREATE INDEX tasks_by_name ON tasks (name, since);
CREATE INDEX tasks_by_group ON tasks (grp, name);
"""


class IndexWriter(Index):
    """The index of one bank, opened to be changed.

    Args:
        path: the file.
        manifest: of the bank.

    Raises:
        ArtifactError: as `Index`.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._numbers: dict[str, int] = {}
        super().__init__(path, manifest, writes=True)

    @contextmanager
    def changes(self) -> Iterator[None]:
        """A block of changes that make a generation; all are kept, or none. `hold` says what then holds."""
        with self.faults():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def hold(self, state: State) -> None:
        """Say what holds after the block."""
        asked = "UPDATE state SET bank = ?, generation = ?, tasks = ?, total = ?, sizes = ?, chk = ?"
        self._db.execute(asked, state.texts)

    def put(self, line: Line) -> int:
        """Add what is said of a task; its check number."""
        shard, *words = map(self._number, (line.shard, line.group, line.definition, line.run))
        check = line.check
        signed = check - SIGN if check >= SIGN // 2 else check
        told = (line.name, line.since, shard, line.place, line.length, *words, line.metrics)
        marks = ", ".join("?" * 11)
        self._db.execute(f"INSERT INTO tasks ({FIELDS}) VALUES ({marks})", (*told, line.sha256, signed))
        return check

    def end(self, name: str, generation: int) -> int | None:
        """Let a task end with the generation before; its check number, or none where it is not alive."""
        asked = "SELECT id, chk FROM tasks WHERE name = ? AND until IS NULL"
        found = self._db.execute(asked, (name,)).fetchone()
        if found is None:
            return None
        self._db.execute("UPDATE tasks SET until = ? WHERE id = ?", (generation, found[0]))
        return int(found[1]) % SIGN

    def since(self, name: str) -> int | None:
        """Since when the block's generation has the task; none: it does not."""
        found = self._db.execute(
            "SELECT since FROM tasks WHERE name = ? AND until IS NULL", (name,)
        ).fetchone()
        return None if found is None else int(found[0])

    def _number(self, text: str) -> int:
        """The number of a text, which is added if it is new; the last ones are kept in memory."""
        if text not in self._numbers:
            found = self.number(text)
            if not found:
                values = (key_of(text), text)
                added = self._db.execute("INSERT INTO words (key, text) VALUES (?, ?)", values)
                found = int(added.lastrowid or 0)
            if len(self._numbers) >= WORDS:
                self._numbers.clear()
            self._numbers[text] = found
        return self._numbers[text]

    def settle(self) -> None:
        """Bring the log into the file, as far as no reader needs it."""
        with self.faults():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def create(path: Path, state: State) -> None:
    """A new index without tasks; one that an interrupted attempt left is removed.

    Raises:
        ResourceError: if the disk refuses.
    """
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        storage.remove(path.with_name(name))
    try:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        db.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?)", state.texts)
        db.close()
    except sqlite3.Error as error:
        raise refused(path, error) from None
