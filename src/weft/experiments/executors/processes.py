"""Processes of this machine, each with its share of the threads, and a GPU where there are some."""

import multiprocessing
import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue

from weft.errors import Stopped
from weft.experiments.executors import LostWorkerError
from weft.experiments.orders import Order, Outcomes, fill

ENDS = 60.0  # seconds for a step to end and be saved, after SIGTERM


class _Worker:
    """A process that fills one order after another.

    Args:
        number: from 0.
        threads: of its products.
        device: the GPU that it sees; none: all there are.
    """

    def __init__(self, number: int, threads: int, device: str | None) -> None:
        self.number = number
        spawn = multiprocessing.get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(other, threads, device), daemon=True)
        self.process.start()
        other.close()

    def fill(self, order: Order) -> Outcomes:
        """What became of an order.

        Raises:
            LostWorkerError: if the process ended before it was filled.
        """
        try:
            self._pipe.send(order)
            found = self._pipe.recv()
        except (EOFError, OSError):
            self.process.join(ENDS)
            raise LostWorkerError(f"worker {self.number} ended with {self.process.exitcode}") from None
        if isinstance(found, BaseException):
            raise found
        return dict(found)

    def end(self) -> None:
        """By SIGTERM, which lets a step end and be saved; by force, if that takes too long."""
        self.process.terminate()
        self.process.join(ENDS)
        if self.process.is_alive():
            self.process.kill()


class Processes:
    """Several of them. One that was lost is replaced. OMP_NUM_THREADS, where it is set, is each one's.

    Args:
        slots: how many.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        share = max(1, (os.cpu_count() or 1) // slots)
        self._threads = int(os.environ.get("OMP_NUM_THREADS") or share)
        self._devices = _devices()
        self._workers = [self._worker(number) for number in range(slots)]
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(slots):
            self._free.put(number)
        self._asking = ThreadPoolExecutor(slots)

    def submit(self, order: Order) -> "Future[Outcomes]":
        """See `Executor`."""
        return self._asking.submit(self._fill, order)

    def _fill(self, order: Order) -> Outcomes:
        number = self._free.get()
        try:
            return self._workers[number].fill(order)
        except LostWorkerError:
            self._workers[number] = self._worker(number)
            raise
        finally:
            self._free.put(number)

    def _worker(self, number: int) -> _Worker:
        device = self._devices[number % len(self._devices)] if self._devices else None
        return _Worker(number, self._threads, device)

    def close(self) -> None:
        """See `Executor`."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.end()


def _serve(pipe: "Connection[object, Order]", threads: int, device: str | None) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the main process tells what to do
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is loaded
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(fill(order))
        except Stopped as stop:
            raise SystemExit(stop.exit_code) from None
        except Exception as error:
            pipe.send(error)


def _devices() -> list[str]:
    """The GPUs that may be used."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = map(str, range(torch.cuda.device_count())) if named is None else named.split(",")
    return [one for one in every if one]
