"""A process beside a command, which tells trackers of the command's runs while they go on.

It only reads in the runs' folders, and ends with the command. A fault of a tracker comes back as a line of
text, and ends the telling of that run to that tracker.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from weft.errors import WeftError
from weft.runs import Run
from weft.tracking.telling import LOOK, Telling
from weft.tracking.trackers import FOLDER, Trackers

if TYPE_CHECKING:
    from weft.runs.config import AnyRun
    from weft.runs.workspace import Workspace

LEAVE = 60.0  # seconds that trackers have for what is left when a command is at its end
LOG = "log"  # of the trackers' folder: what their clients print


@contextmanager
def followed(trackers: Trackers, configs: Sequence["AnyRun"], workspace: "Workspace") -> Iterator[None]:
    """Tell trackers of runs while the block runs them; of those that are finished already nothing is told.

    Args:
        trackers: which; if there are none, nothing is done.
        configs: of the runs, whoever runs them.
        workspace: where they are run; its progress shows what went wrong with a tracker.
    """
    asked = configs if trackers.names else ()
    names = [workspace.run_id(one) for one in asked if not workspace.run(one).done]
    if not names:
        yield
        return
    beside = _Companion(trackers, names, workspace.progress.warn)
    try:
        yield
    finally:
        beside.end()


class _Companion:
    """The process, as the command sees it.

    Args:
        trackers: to tell.
        runs: names of runs, of which no folder need be there yet.
        warn: told of faults.
    """

    def __init__(self, trackers: Trackers, runs: Sequence[str], warn: Callable[[str], None]) -> None:
        self._trackers, self._warn = trackers, warn
        spawn = multiprocessing.get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(other, trackers, tuple(runs)), daemon=True)
        self.process.start()
        other.close()
        self._listening = Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._warn(str(self._pipe.recv()))

    def end(self) -> None:
        """Let it tell what is left, as long as that takes no minute."""
        try:
            with suppress(OSError):
                self._pipe.send(None)
            self.process.join(LEAVE)
            if self.process.exitcode != 0:
                late = f"took more than {LEAVE:.0f} s at the end"
                how = late if self.process.is_alive() else f"ended with {self.process.exitcode}"
                self._warn(f"the trackers' process {how}; {remedy(self._trackers, 'RUN')}")
        finally:
            self.process.kill()
            self.process.join()
            self._listening.join(LOOK)


def _serve(pipe: "Connection[object, object]", trackers: Trackers, runs: Sequence[str]) -> None:
    """The life of the process: it ends when it is told to, or the command is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the command ends it, in its own time
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # torch has nothing to compute here
    _print_to(trackers)
    over, one_at_a_time = Event(), Lock()

    def say(text: str) -> None:
        with one_at_a_time, suppress(OSError):
            pipe.send(text)

    Thread(target=_wait, args=(pipe, over), daemon=True).start()
    waiting = [Telling(Run(trackers.root / run), name, trackers) for run in runs for name in trackers.names]
    telling: list[Thread] = []
    while waiting:
        last = over.is_set()
        begun = [one for one in waiting if (one.run.path / "config.yaml").is_file()]
        waiting = [] if last else [one for one in waiting if one not in begun]
        for one in begun:
            telling.append(Thread(target=_tell, args=(one, over, say)))
            telling[-1].start()
        over.wait(LOOK)
    for thread in telling:
        thread.join()


def _wait(pipe: "Connection[object, object]", over: Event) -> None:
    """Until the command says that it is at its end, or is gone."""
    with suppress(EOFError, OSError):
        pipe.recv()
    over.set()


def _tell(one: Telling, over: Event, say: Callable[[str], None]) -> None:
    try:
        one.tell(over.is_set)
    except BaseException as error:  # a client may even ask the process to end
        rest = remedy(one.trackers, one.run.id, one.name)
        say(f"{one.name} is told nothing more of {one.run.id}: {reason(error)}; {rest}")


def reason(error: BaseException) -> str:
    """A fault in one line."""
    if isinstance(error, WeftError):
        return error.line
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def remedy(trackers: Trackers, run: str, name: str = "") -> str:
    """How a tracker gets what it was not told of a run, later."""
    names = name or ",".join(trackers.names)
    return f"what is missing, once it is finished: weft track {run} --to {names} --project {trackers.project}"


def _print_to(trackers: Trackers) -> None:
    """What clients print goes to a file: a command's own output is for programs."""
    folder = trackers.root / FOLDER
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(handle, stream.fileno())
