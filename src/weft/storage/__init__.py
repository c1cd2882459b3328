"""Files that must not be lost or believed unseen: durable writes, sealed folders, locks, hashes, pages.

All that weft keeps goes through here. Nothing here knows what a run or a prompt is. Loads without torch.
"""

from weft.storage.durable import (
    TEMPORARY,
    append_bytes,
    append_line,
    check_log,
    cut_log,
    flush_log,
    is_proven,
    read_json,
    read_proven,
    remove,
    sweep,
    write_bytes,
    write_json,
    write_proven,
    write_text,
)
from weft.storage.hashing import canonical_json, sha256_bytes, sha256_file, sha256_json, strict_json
from weft.storage.locks import locked
from weft.storage.sealed import (
    LARGEST_FILE,
    LARGEST_MANIFEST,
    MANIFEST,
    RESTORE,
    check_plain,
    is_sealed,
    names,
    open_plain,
    read_plain,
    read_verified,
    seal,
    verify,
)

__all__ = [
    "LARGEST_FILE",
    "LARGEST_MANIFEST",
    "MANIFEST",
    "RESTORE",
    "TEMPORARY",
    "append_bytes",
    "append_line",
    "canonical_json",
    "check_log",
    "check_plain",
    "cut_log",
    "flush_log",
    "is_proven",
    "is_sealed",
    "locked",
    "names",
    "open_plain",
    "read_json",
    "read_plain",
    "read_proven",
    "read_verified",
    "remove",
    "seal",
    "sha256_bytes",
    "sha256_file",
    "sha256_json",
    "strict_json",
    "sweep",
    "verify",
    "write_bytes",
    "write_json",
    "write_proven",
    "write_text",
]
