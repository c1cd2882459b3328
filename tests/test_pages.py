"""The page store: entries come back as they were or not at all, within the budget, whatever the disk does."""

import errno
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft import storage
from weft.storage import durable, page_store
from weft.storage.page_store import PageStore

FLIPS = 40  # of the bytes of a page's data; of its header every one is flipped


def entry(number, size=8):
    """An entry that follows from its number."""
    draw = torch.Generator().manual_seed(number)
    return {
        "kv": torch.randn(2, size, generator=draw).half(),
        "top": torch.randint(99, (size,), generator=draw, dtype=torch.int32),
        "rest": torch.tensor(number / 3, dtype=torch.float32),
        "states": torch.randn(size, generator=draw).bfloat16(),
    }


def same(found, wanted):
    """Whether two entries are the same to the last bit, formats and shapes included."""
    return found.keys() == wanted.keys() and all(
        found[name].dtype == one.dtype and torch.equal(found[name], one) for name, one in wanted.items()
    )


def refuse(text):
    """For stores that must have nothing to warn of."""
    raise AssertionError(text)


def open_store(folder, max_bytes=1 << 20, warn=refuse):
    """A store of a folder, or in memory."""
    return PageStore(folder, max_bytes, warn)


def put(store, *numbers, size=8):
    """Entries with some numbers, as one page."""
    store.put({str(number): entry(number, size) for number in numbers})


def files(folder):
    """Names in a folder, and the bytes of all of them."""
    found = list(folder.iterdir())
    return [path.name for path in found], sum(path.stat().st_size for path in found)


@pytest.mark.parametrize("on_disk", [False, True])
def test_entries_come_back_as_they_were(tmp_path, on_disk):
    """Every format and shape, bit by bit; what was never put is not there."""
    store = open_store(tmp_path / "a" / "b" if on_disk else None)
    put(store, 1, 2)
    put(store, 3)
    for number in (1, 2, 3):
        assert str(number) in store
        assert same(store.get(str(number)), entry(number))
    assert "4" not in store
    assert store.get("4") is None


def test_another_process_finds_them_mapped(tmp_path):
    """A store opened later knows all; a page is one file, named by its bytes, and is mapped, not read."""
    put(open_store(tmp_path), 1, 2)
    (page,) = tmp_path.iterdir()
    assert page.name == f"page-{storage.sha256_file(page)}.safetensors"
    later = open_store(tmp_path)
    found = later.get("2")
    assert same(found, entry(2))
    assert later.bytes == page.stat().st_size
    if Path("/proc/self/maps").exists():
        assert page.name in Path("/proc/self/maps").read_text()


def test_a_page_is_neither_hashed_nor_mapped_before_its_use(tmp_path, monkeypatch):
    """Opening a store reads headers alone; a page is hashed once, at the first of its entries."""
    put(open_store(tmp_path), 1, 2)
    hashed, whole = [], durable.sha256_file
    monkeypatch.setattr(durable, "sha256_file", lambda path: hashed.append(path) or whole(path))
    store = open_store(tmp_path)
    assert "1" in store
    assert hashed == []
    for number in (1, 2, 1):
        store.get(str(number))
    assert len(hashed) == 1


def test_changing_an_entry_changes_no_file(tmp_path):
    """A mapped tensor that is written to by mistake leaves the page as it was."""
    put(open_store(tmp_path), 1)
    found = open_store(tmp_path).get("1")
    found["kv"].zero_()
    assert same(open_store(tmp_path).get("1"), entry(1))


# the budget


def check_budget(folder, steps, max_bytes):
    """Puts and gets against the rule: whole pages leave, the one used longest ago first."""
    store, order = open_store(folder, max_bytes), []
    for numbers, size in steps:
        known = [page for page in order if page & set(numbers)]
        if known:  # asks for what is there
            assert all(str(number) in store for number in known[0])
            number = min(known[0] & set(numbers))
            assert store.get(str(number)) is not None
            order = [page for page in order if page != known[0]] + known[:1]
            continue
        before = store.bytes
        put(store, *numbers, size=size)
        page = frozenset(numbers)
        while order and not all(str(number) in store for number in order[0]):
            assert not any(str(number) in store for number in order[0])  # left whole
            order.pop(0)
        assert all(str(number) in store for left in order for number in left)  # no later one left
        if str(numbers[0]) in store:
            assert all(str(number) in store for number in numbers)
            order.append(page)
        else:
            assert store.bytes == before  # too large for the budget: nothing else left for it
        assert store.bytes == files(folder)[1] <= max_bytes


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True), st.integers(1, 150)),
        max_size=20,
    ),
    st.integers(600, 4000),
)
def test_whole_pages_leave_least_recently_used_first(steps, max_bytes):
    """Never more bytes than allowed, on the disk too, and never half a page."""
    with TemporaryDirectory() as folder:
        check_budget(Path(folder), steps, max_bytes)


def test_a_page_leaves_only_when_there_is_no_room(tmp_path):
    """Two pages that fit stay; the third drops the first, or the second if the first was touched."""
    put(open_store(tmp_path / "one"), 1)
    size = files(tmp_path / "one")[1]
    for touched, left in ((False, "1"), (True, "2")):
        store = open_store(tmp_path / str(touched), 2 * size + 20)
        put(store, 1)
        put(store, 2)
        assert len(files(tmp_path / str(touched))[0]) == 2
        if touched:
            store.touch("1")
        put(store, 3)
        assert [str(number) for number in (1, 2, 3) if str(number) not in store] == [left]


def test_pages_used_in_an_earlier_process_leave_last(tmp_path):
    """The order is that of their use, which later processes see."""
    store = open_store(tmp_path)
    for number in (1, 2):
        put(store, number)
        page = tmp_path / store._page_of[str(number)]
        os.utime(page, (number, number))
    open_store(tmp_path).get("1")
    later = open_store(tmp_path, store.bytes + 20)
    put(later, 3)
    assert ("1" in later, "2" in later) == (True, False)


def test_pages_of_others_count(tmp_path):
    """What another process wrote takes room, and leaves when it is the oldest."""
    mine = open_store(tmp_path, 1500)
    for number in range(20):
        put(mine if number % 2 else open_store(tmp_path, 1500), number)
        assert files(tmp_path)[1] <= 1500


def test_tensors_of_a_page_that_left_stay_valid(tmp_path):
    """Whoever holds a mapped entry keeps its numbers, whoever removes the page."""
    store = open_store(tmp_path)
    put(store, 1)
    one, two = open_store(tmp_path).get("1"), store.get("1")
    for path in tmp_path.iterdir():
        path.unlink()
    assert same(one, entry(1))
    assert same(two, entry(1))
    store.refresh()
    assert "1" not in store
    assert store.bytes == 0


def test_a_page_that_another_process_removed_is_missing(tmp_path):
    """No warning: it was a cache's right to drop it."""
    put(open_store(tmp_path), 1)
    store = open_store(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    assert store.get("1") is None
    assert "1" not in store
    put(store, 1)
    assert same(store.get("1"), entry(1))


@pytest.mark.parametrize("opened", [False, True])
def test_a_page_that_goes_while_it_is_opened_is_missing(tmp_path, monkeypatch, opened):
    """Removed by another process between two steps of opening it: no error, no warning."""
    put(open_store(tmp_path), 1)
    whole = page_store.safe_open

    def gone(path, **kw):
        path.unlink()
        if opened:  # the file is opened twice, and torch does the second time
            raise RuntimeError(
                f"unable to open file <{path}> in read-only mode: No such file or directory (2)"
            )
        return whole(path, **kw)

    store = open_store(tmp_path)
    monkeypatch.setattr(page_store, "safe_open", gone)
    assert store.get("1") is None
    monkeypatch.setattr(page_store, "safe_open", whole)
    put(store, 1)
    monkeypatch.setattr(page_store, "safe_open", gone)
    assert "1" not in open_store(tmp_path)


# damage


def spoiled(data):
    """A page's bytes with single bytes flipped, cut short, grown, or another page's."""
    header = 8 + int.from_bytes(data[:8], "little")
    places = [*range(header), *range(header, len(data), max(1, (len(data) - header) // FLIPS))]
    yield from (data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :] for i in places)
    yield from (data[:length] for length in (0, 1, 7, 8, 9, header - 1, header, len(data) - 1))
    yield data + b"\0"


def test_damage_gives_no_wrong_number(tmp_path):
    """Any flipped byte, any cut: an entry is missing, and the page goes with one warning that names it."""
    put(open_store(tmp_path), 1, 2)
    (page,) = tmp_path.iterdir()
    data = page.read_bytes()
    for bad in spoiled(data):
        page.write_bytes(bad)
        warnings = []
        store = open_store(tmp_path, warn=warnings.append)
        assert [store.get("1"), store.get("2")] == [None, None]
        for key in list(store._page_of):
            assert store.get(key) is None  # under a spoiled name too
        assert len(warnings) == 1
        assert page.name in warnings[0]
        assert files(tmp_path) == ([], 0)
        put(store, 1, 2)
        assert page.read_bytes() == data


def test_a_page_under_a_foreign_name_is_refused(tmp_path):
    """A whole page whose name is another's proves nothing."""
    store = open_store(tmp_path)
    put(store, 1)
    put(store, 2)
    one, two = sorted(tmp_path.iterdir())
    one.write_bytes(two.read_bytes())
    warnings = []
    later = open_store(tmp_path, warn=warnings.append)
    found = [later.get(key) for key in ("1", "2")]
    assert all(one is None or same(one, entry(number)) for number, one in zip((1, 2), found, strict=True))
    later.get("1"), later.get("2")
    assert (len(warnings), len(files(tmp_path)[0])) in ((1, 1), (0, 2))


def test_names_that_are_no_entries_are_refused(tmp_path):
    """A file with a right hash and names without a key is no page."""
    data = page_store.save({"kv": torch.ones(3)})
    (tmp_path / f"page-{storage.sha256_bytes(data)}.safetensors").write_bytes(data)
    warnings = []
    open_store(tmp_path, warn=warnings.append)
    assert len(warnings) == 1
    assert files(tmp_path) == ([], 0)


def test_what_is_no_page_is_left_alone(tmp_path):
    """Other files, folders, links and pipes stay and are not read; old temporary files go, new ones stay."""
    name = f"page-{'0' * 64}.safetensors"
    for place in ("folder", "link", "pipe"):
        (tmp_path / place).mkdir()
    (tmp_path / "folder" / name).mkdir()
    (tmp_path / "link" / name).symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe" / name)
    for place in ("folder", "link", "pipe"):
        store = open_store(tmp_path / place)
        put(store, 1)
        assert same(store.get("1"), entry(1))
        assert os.path.lexists(tmp_path / place / name)
    (tmp_path / "notes.txt").write_text("mine")
    old, new = (tmp_path / f"{storage.TEMPORARY}{age}-page" for age in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half a pa")
    os.utime(old, (time.time() - 2 * page_store.LEFT_BEHIND,) * 2)
    open_store(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (old.exists(), new.exists()) == (False, True)


# a disk that refuses


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_ends_nothing(tmp_path, monkeypatch, number):
    """One warning, and from then on entries are kept in memory; what is on the disk is still found."""
    warnings = []
    put(open_store(tmp_path), 1)
    store = open_store(tmp_path, warn=warnings.append)

    def failing(*args, **kw):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "write", failing)
        put(store, 2)
        put(store, 3)
    assert len(warnings) == 1
    assert str(tmp_path) in warnings[0]
    put(store, 4)
    assert all(same(store.get(str(number)), entry(number)) for number in (1, 2, 3, 4))
    assert len(files(tmp_path)[0]) == 1


def test_the_last_free_space_is_left_to_others(tmp_path, monkeypatch):
    """With little space left nothing is written: results and checkpoints need it."""
    free = type("Usage", (), {"free": page_store.FREE_BYTES})()
    monkeypatch.setattr(page_store.shutil, "disk_usage", lambda path: free)
    warnings = []
    store = open_store(tmp_path / "texts", warn=warnings.append)
    put(store, 1)
    assert same(store.get("1"), entry(1))
    assert len(warnings) == 1
    assert files(tmp_path) == ([], 0)


def test_a_place_that_is_no_folder_ends_nothing(tmp_path):
    """A file where the folder should be: one warning, and memory."""
    (tmp_path / "file").write_bytes(b"")
    warnings = []
    store = open_store(tmp_path / "file", warn=warnings.append)
    put(store, 1)
    assert same(store.get("1"), entry(1))
    assert len(warnings) == 1


def test_a_page_that_cannot_be_removed_is_not_taken_up_again(tmp_path, monkeypatch):
    """One warning for it, not one at every look."""
    put(open_store(tmp_path), 1)
    (page,) = tmp_path.iterdir()
    page.write_bytes(page.read_bytes()[:-1])

    def failing(path):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    warnings = []
    monkeypatch.setattr(durable.os, "unlink", failing)
    store = open_store(tmp_path, warn=warnings.append)
    for _ in range(3):
        store.refresh()
    assert len(warnings) == 1
    assert "1" not in store


# several processes


def test_a_page_that_is_written_again_is_no_damage(tmp_path, monkeypatch):
    """Removed by one process while it is read, and written again by another at once: it stays."""
    put(open_store(tmp_path), 1)
    warnings = []
    store = open_store(tmp_path, warn=warnings.append)
    real = page_store.safe_open

    def vanishing(path, framework):
        data = Path(path).read_bytes()
        Path(path).unlink()
        try:
            return real(path, framework=framework)
        finally:
            Path(path).write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(page_store, "safe_open", vanishing)
        assert store.get("1") is None
    assert warnings == []
    store.refresh()
    assert same(store.get("1"), entry(1))


def work(folder, seed):
    """Puts and gets at random, in a small budget; counts wrong answers and warnings."""
    draw = torch.Generator().manual_seed(seed)
    warnings, wrong = [], 0
    store = open_store(folder, 6000, warnings.append)
    for _ in range(150):
        numbers = torch.randint(30, (2,), generator=draw).tolist()
        for number in numbers:
            found = store.get(str(number))
            wrong += found is not None and not same(found, entry(number))
        put(store, *set(numbers))
    return wrong, warnings


def test_processes_share_a_folder(tmp_path):
    """Three at once, adding and dropping: no wrong number, no warning, and the budget holds in the end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, context) as workers:
        assert list(workers.map(work, [tmp_path] * 3, range(3))) == [(0, [])] * 3
    put(open_store(tmp_path, 6000), 99)
    names, size = files(tmp_path)
    assert size <= 6000
    assert all(page_store.PAGE.fullmatch(name) for name in names)
