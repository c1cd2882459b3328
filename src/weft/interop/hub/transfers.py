"""Folders to the hub and back, through `huggingface_hub`; what it raises, told with place and remedy.

Nothing that comes back is believed: `fetched` takes the files that a manifest names, and whoever puts them in
their place holds them against its hashes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from weft.errors import ArtifactError, ConfigError, ResourceError, WeftError
from weft.storage import LARGEST_MANIFEST, MANIFEST, read_plain
from weft.storage.pack import FOLDER_NAME
from weft.storage.sealed import Entries, entries_in

NETWORK = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, and run the same command again"
LOGIN = "log in with a token that may do it (hf auth login, or HF_TOKEN), and check the name"
KEPT = (".gitattributes", "README.md")  # what a repository may hold that is not weft's


@dataclass(frozen=True)
class Fetched:
    """A sealed folder of a repository, as it was downloaded.

    Attributes:
        repo: name of the repository.
        commit: that it is of.
        name: of the folder.
        files: what its manifest says.
        path: the folder in the hub's cache.
    """

    repo: str
    commit: str
    name: str
    files: Entries
    path: Path

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.repo}@{self.commit[:12]}, {self.name}"


def _client() -> Any:
    """What the hub's client offers without a type: checks of names, and whichever httpx it speaks with."""
    return import_module("huggingface_hub.utils")


def check_name(repo: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        ConfigError: with the form that it must have.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        _client().validate_repo_id(repo)
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
    with told(repo, writes=True):
        api.create_repo(repo, private=private or None, exist_ok=True)
        info = api.model_info(repo)
        there = [one.rfilename for one in info.siblings or []]
        _check_free(repo, there, private=private and info.private is False)
        gone = [name for name in there if name not in (*KEPT, *names)]
        add = [CommitOperationAdd(name, str(folder / name)) for name in names]
        drop = [CommitOperationDelete(name) for name in gone]
        commit = api.create_commit(repo, [*drop, *add], commit_message=message, parent_commit=info.sha)
    return str(commit.commit_url)


def _check_free(repo: str, there: list[str], *, private: bool) -> None:
    """Refuse a repository that weft did not make, and a public one for what is private.

    Raises:
        ConfigError: with the reason.
    """
    if private:
        cause, fix = (
            "the repository is there already, and is public",
            "make it private on the hub, or name another",
        )
        raise ConfigError(cause, where=repo, fix=fix, code="C23")
    others = [name for name in there if name not in KEPT]
    if others and not _sealed(there):
        cause = f"the repository holds other things, {others[0]!r} among them, which a push would replace"
        raise ConfigError(cause, where=repo, fix="name another repository", code="C23")


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
    said = found / name / MANIFEST
    files = entries_in(read_plain(said.resolve(), LARGEST_MANIFEST), Path(repo, name, MANIFEST))
    check(files, f"{repo}@{commit[:12]}, {name}")
    with told(repo, revision):
        found = _snapshot(repo, commit, [f"{name}/{file}" for file in [MANIFEST, *files]], again)
    return Fetched(repo, commit, name, files, found / name)


def _snapshot(repo: str, revision: str | None, patterns: list[str], again: bool) -> Path:
    from huggingface_hub import snapshot_download

    path = snapshot_download(
        repo, revision=revision, allow_patterns=patterns, force_download=again, library_name="weft"
    )
    return Path(path)


@contextmanager
def told(repo: str, revision: str | None = None, *, writes: bool = False) -> Iterator[None]:
    """What the hub's client raises, as errors with cause, place and remedy.

    Raises:
        ArtifactError: if the hub refuses or cannot be reached.
        ResourceError: if the disk refuses.
    """
    try:
        yield
    except WeftError:
        raise
    except Exception as error:
        if (fault := _fault(error, f"{repo}@{revision or 'main'}", writes)) is None:
            raise
        raise fault from None


def _fault(error: BaseException, where: str, writes: bool) -> WeftError | None:
    """The error that says what happened; none for a fault of weft or of the client."""
    from huggingface_hub import errors

    wraps = isinstance(
        error, RuntimeError | errors.LocalEntryNotFoundError
    )  # an upload's thread; a cache's miss
    if wraps and error.__cause__ is not None and (fault := _fault(error.__cause__, where, writes)):
        return fault
    refused: tuple[tuple[type[BaseException], str, str], ...] = (
        (
            errors.GatedRepoError,
            "the repository is gated, and the token was not let in",
            f"ask there, and {LOGIN}",
        ),
        (errors.RepositoryNotFoundError, "there is no such repository, or the token may not see it", LOGIN),
        (
            errors.RevisionNotFoundError,
            "the repository has no such revision",
            "name a branch, a tag or a commit",
        ),
        (errors.LocalTokenNotFoundError, "there is no token for the hub", LOGIN),
        (
            errors.LocalEntryNotFoundError,
            "the hub cannot be reached, and this was not downloaded before",
            NETWORK,
        ),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, and this was not downloaded before", NETWORK),
        (errors.FileMetadataError, "what answers is no hub", NETWORK),
    )
    for kind, cause, fix in refused:
        if isinstance(error, kind):
            return ArtifactError(cause, where=where, fix=fix, code="C24")
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error.response.status_code, where, writes)
    if isinstance(error, _client().httpx.HTTPError):
        cause = f"the hub cannot be reached, or broke off ({type(error).__name__})"
        return ArtifactError(cause, where=where, fix=NETWORK, code="C24")
    if isinstance(error, OSError):
        cause = f"a download cannot be kept, or did not come whole: {str(error).splitlines()[0][:200]}"
        fix = (
            "see to the disk and the network (the hub's cache is at HF_HOME), and run the same command again"
        )
        return ResourceError(cause, where=where, fix=fix, code="R08")
    return None


def _refusal(status: int, where: str, writes: bool) -> ArtifactError:
    """What an answer of the hub means."""
    known = {
        401: ("the hub knows no token, or not this one", LOGIN),
        403: (f"the token may not {'write' if writes else 'read'} there", LOGIN),
        412: ("somebody else changed the repository meanwhile", "look at what is there now, and push again"),
        429: ("the hub is asked too often", "wait, and run the same command again"),
    }
    cause, fix = known.get(status, (f"the hub answered with status {status}", NETWORK))
    return ArtifactError(cause, where=where, fix=fix, code="C24")
