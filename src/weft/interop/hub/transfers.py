"""Folders to the hub and back, through `huggingface_hub`; what it raises, told with place and remedy.

Nothing that comes back is believed: `fetched` takes the files that a manifest names, and whoever puts them in
their place holds them against its hashes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weft.bank import exchange
from weft.errors import ArtifactError, ConfigError
from weft.interop.hub.refusals import client, told
from weft.storage import LARGEST_MANIFEST, MANIFEST, prompt_files, read_plain
from weft.storage.pack import FOLDER_NAME
from weft.storage.sealed import Entries, entries_in

AGAIN = "ask for it to be pushed again; nothing was put in its place"
CONFIG, PEFT = "config.yaml", (prompt_files.CONFIG, prompt_files.ADAPTER)
KEPT = (".gitattributes", "README.md")  # what a repository may hold that is not weft's


@dataclass(frozen=True)
class Fetched:
    """A sealed folder of a repository, as it was downloaded.

    Attributes:
        where: repository, commit and folder, for messages.
        name: of the folder.
        files: what its manifest says.
        path: the folder in the hub's cache.
    """

    where: str
    name: str
    files: Entries
    path: Path


def check_name(repo: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        ConfigError: with the form that it must have.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        client().validate_repo_id(repo)
        if "/" in repo:
            return
    except HFValidationError:
        pass
    raise ConfigError(f"{repo!r} is no repository of a hub", where="REPO", fix="USER/NAME", code="C12")


def upload(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Put a folder into a repository as one commit: all of it, or nothing. The commit's address.

    The repository is made if it is not there. What it held of weft before is replaced.

    Raises:
        ArtifactError: if the hub refuses or cannot be reached.
        ConfigError: if the repository holds other things, or is public and should not be.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="weft")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with told(repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        info = api.model_info(repo)
        there = [one.rfilename for one in info.siblings or []]
        _check_free(repo, there, exposed=private and info.private is False)
        gone = [name for name in _ours(there) if name not in names]
        add = [CommitOperationAdd(name, str(folder / name)) for name in names]
        drop = [CommitOperationDelete(name) for name in gone]
        commit = api.create_commit(repo, [*drop, *add], commit_message=message, parent_commit=info.sha)
    return str(commit.commit_url)


def _check_free(repo: str, there: list[str], *, exposed: bool) -> None:
    """Refuse a repository that weft did not make, and a public one for what is private.

    Raises:
        ConfigError: with the reason.
    """
    if exposed:
        cause = "the repository is there already, and is public"
        fix = "make it private on the hub, or name another"
        raise ConfigError(cause, where=repo, fix=fix, code="C23")
    others = [name for name in there if name not in KEPT]
    if others and not _ours(there):
        cause = f"the repository holds other things, {others[0]!r} among them, which a push would replace"
        raise ConfigError(cause, where=repo, fix="name another repository", code="C23")


def _ours(names: list[str]) -> list[str]:
    """The files of a repository that a push left there, but for the card."""
    marks = (CONFIG, exchange.ABOUT)
    folders = [one for one in _sealed(names) if any(f"{one}/{mark}" in names for mark in marks)]
    own = [name for name in names if name.partition("/")[0] in folders]
    return [*own, *(name for name in names if name in PEFT)] if own else []


def _sealed(names: list[str]) -> list[str]:
    """The folders with a manifest, directly in a repository."""
    parts = [name.split("/") for name in names]
    return sorted(
        one[0] for one in parts if len(one) == 2 and one[1] == MANIFEST and FOLDER_NAME.fullmatch(one[0])
    )


def fetched(
    repo: str, revision: str | None, check: Callable[[Entries, str], None], *, again: bool = False
) -> Fetched:
    """Download the one sealed folder of a repository: its manifest first, and then the files that it names.

    Args:
        repo: name of the repository.
        revision: a branch, a tag or a commit; none: main.
        check: refuses files, of a manifest, that are not wanted; the second argument says where.
        again: whatever was downloaded before is downloaded anew.

    Raises:
        ArtifactError: if the hub refuses or cannot be reached, or the repository holds no such folder.
    """
    with told(repo, revision):
        found = _snapshot(repo, revision, [f"*/{MANIFEST}"], again)
    names = _sealed([str(path.relative_to(found)) for path in found.glob(f"*/{MANIFEST}")])
    if len(names) != 1:
        cause = f"the repository holds {len(names) or 'no'} runs or banks of weft, and should hold one"
        fix = "name a repository that weft push made; an adapter of PEFT comes in by method: given"
        raise ArtifactError(cause, where=f"{repo}@{revision or 'main'}", fix=fix, code="C16")
    [name], commit = names, found.name
    where = f"{repo}@{commit[:12]}, {name}"
    files = _said(found / name / MANIFEST, where)
    check(files, where)
    with told(repo, revision):
        found = _snapshot(repo, commit, [f"{name}/{file}" for file in [MANIFEST, *files]], again)
    return Fetched(where, name, files, found / name)


def _said(path: Path, where: str) -> Entries:
    """What a downloaded manifest names.

    Raises:
        ArtifactError: if it is none.
    """
    try:
        return entries_in(read_plain(path.resolve(), LARGEST_MANIFEST), path)
    except ArtifactError as fault:
        raise ArtifactError(fault.cause, where=f"{where}/{MANIFEST}", fix=AGAIN, code=fault.code) from None


def _snapshot(repo: str, revision: str | None, patterns: list[str], again: bool) -> Path:
    from huggingface_hub import snapshot_download

    path = snapshot_download(
        repo, revision=revision, allow_patterns=patterns, force_download=again, library_name="weft"
    )
    return Path(path)
