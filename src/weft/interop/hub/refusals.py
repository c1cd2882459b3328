"""What the hub's client raises, as errors with cause, place and remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from weft.errors import ArtifactError, ResourceError, WeftError

NETWORK = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, and run the same command again"
LOGIN = "log in with a token that may do it (hf auth login, or HF_TOKEN), and check the name"
NOT_KEPT = "and this was not downloaded before"
KINDS = (  # of the client's errors, the narrower ones first
    ("GatedRepoError", "the repository is gated, and the token was not let in", f"ask there, and {LOGIN}"),
    ("RepositoryNotFoundError", "there is no such repository, or the token may not see it", LOGIN),
    ("RevisionNotFoundError", "the repository has no such revision", "name a branch, a tag or a commit"),
    ("LocalTokenNotFoundError", "there is no token for the hub", LOGIN),
    ("LocalEntryNotFoundError", f"the hub cannot be reached, {NOT_KEPT}", NETWORK),
    ("OfflineModeIsEnabled", f"HF_HUB_OFFLINE is set, {NOT_KEPT}", NETWORK),
    ("FileMetadataError", "what answers is no hub", NETWORK),
)
STATUS = {
    401: ("the hub knows no token, or not this one", LOGIN),
    403: ("the token may not do that there", LOGIN),
    412: ("somebody else changed the repository meanwhile", "look at what is there now, and push again"),
    429: ("the hub is asked too often", "wait, and run the same command again"),
}


def client() -> Any:
    """What the hub's client offers without a type: checks of names, and whichever httpx it speaks with."""
    return import_module("huggingface_hub.utils")


@contextmanager
def told(repo: str, revision: str | None = None) -> Iterator[None]:
    """Raise what the client raises as errors of weft.

    Raises:
        ArtifactError: if the hub refuses or cannot be reached.
        ResourceError: if the disk refuses, or a download does not come whole.
    """
    try:
        yield
    except WeftError:
        raise
    except Exception as error:
        if (fault := _fault(error, f"{repo}@{revision or 'main'}")) is None:
            raise
        raise fault from None


def _fault(error: BaseException, where: str) -> WeftError | None:
    """The error that says what happened; none for a fault of weft or of the client."""
    from huggingface_hub import errors

    # an upload in a thread, and what is not in the cache either, say what they met as their cause
    wraps = isinstance(error, RuntimeError | errors.LocalEntryNotFoundError)
    if wraps and error.__cause__ is not None and (fault := _fault(error.__cause__, where)):
        return fault
    for name, cause, fix in KINDS:
        if isinstance(error, getattr(errors, name)):
            return ArtifactError(cause, where=where, fix=fix, code="C24")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        cause, fix = STATUS.get(status, (f"the hub answered with status {status}", NETWORK))
        return ArtifactError(cause, where=where, fix=fix, code="C24")
    if isinstance(error, client().httpx.HTTPError):
        cause = f"the hub cannot be reached, or broke off ({type(error).__name__})"
        return ArtifactError(cause, where=where, fix=NETWORK, code="C24")
    if isinstance(error, OSError):
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        fix = "see to the disk and the network (downloads lie in HF_HOME), and run the same command again"
        return ResourceError(f"a download is not whole or not kept: {said}", where=where, fix=fix, code="R08")
    return None
