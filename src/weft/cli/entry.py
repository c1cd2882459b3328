"""The entry point: what a user can act on is one message."""

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from cyclopts import App, CycloptsError

from weft.errors import Stopped, WeftError
from weft.stopping import Stop


def main() -> None:
    """Entry point."""
    try:
        _main()
    except SystemExit as leaving:
        if _waits_for_others():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(leaving.code or 0))
        raise


def _main() -> None:
    """What a user can act on is one message; `--debug` keeps the traceback."""
    _speak_utf8()
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        with Stop().watched():
            _program()(arguments, exit_on_error=False)
    except CycloptsError:
        raise SystemExit(2) from None  # cyclopts has said what is wrong
    except (KeyboardInterrupt, Stopped) as stop:
        print("stopped; what is finished is kept, and the same command goes on", file=sys.stderr)
        raise SystemExit(getattr(stop, "exit_code", 130)) from None
    except BrokenPipeError:  # nobody reads on; training that was cut short is no success
        raise SystemExit(141) from None
    except Exception as error:
        if debug:
            raise
        if not _told_elsewhere(error):
            with suppress(OSError):  # the disk under standard error may be the one that is full
                said = error if isinstance(error, WeftError) else _unforeseen(error)
                print(f"error: {said}", file=sys.stderr)
        raise SystemExit(getattr(error, "exit_code", 5 if isinstance(error, OSError) else 1)) from None


def _waits_for_others() -> bool:
    """Whether this process leaves others amid a training: what it waits for cannot be called off."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _told_elsewhere(error: Exception) -> bool:
    """Whether the first of several processes says what all of them met."""
    return isinstance(error, WeftError) and error.shared and os.environ.get("RANK", "0") != "0"


def _speak_utf8() -> None:
    """Answers in any script are written, whatever the system's own code is; JSON is UTF-8 by its standard."""
    for stream in (sys.stdout, sys.stderr):
        code = (getattr(stream, "encoding", None) or "").lower().replace("-", "").replace("_", "")
        if isinstance(stream, TextIOWrapper) and code != "utf8":
            stream.reconfigure(encoding="utf-8", errors="replace")


def _program() -> App:
    """The program with all its commands. Loading them loads methods of other packages, which may fail."""
    from weft.cli import (  # noqa: F401
        answers,
        bank,
        experiments,
        harness,
        hub,
        learn,
        packs,
        serve,
        stages,
        tools,
        tracking,
    )
    from weft.cli.app import app

    return app


def _unforeseen(error: Exception) -> str:
    """What to say of an error that weft should have foreseen, or that the system has."""
    if isinstance(error, OSError):
        return f"{error}\n  fix:   see to the disk and the permissions, and run the same command again"
    return f"{type(error).__name__}: {error}\n  fix:   this is a fault of weft itself; --debug shows where"
