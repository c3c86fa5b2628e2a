"""The processes that share one job, as `torchrun` or SLURM's `srun` start them; without either there is one.

Each knows its own number from the environment, so splitting a table needs no talk between them.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from medgan.errors import ConfigError, InputError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

__all__ = [
    "PATIENCE",
    "Mapped",
    "Place",
    "all_of",
    "copies",
    "follow_parent",
    "gathered",
    "is_first",
    "part_at_exit",
    "place",
    "share",
]

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
PATIENCE = timedelta(days=1)  # of a process that is done and waits for the others
# Long enough for gloo's threads to let go of their last tensor; with torch before 2.8 parting would wait for them
# forever.
GLOO_FORGETS_S = 0.05


@dataclass(frozen=True)
class Place:
    """A process among those of its job.

    Args:
        rank: its number, from 0.
        count: of all processes.
        local_rank: its number on its own machine.
        local_count: of those on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def machines(self) -> int:
        """On how many machines the job runs, each with as many processes."""
        return self.count // self.local_count


def place() -> Place:
    """Where this process stands.

    Raises:
        ConfigError: if the environment names some of a job's numbers and not the others.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        return _place("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ and _is_step():
        return _place("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")
    return Place()


def is_first() -> bool:
    """Whether this is the process that tells and writes what is told and written once."""
    return place().rank == 0


def share(items: Sequence[T]) -> list[T]:
    """This process's part of what all do together: every n-th.

    Example:
        >>> share([1, 2, 3])  # alone
        [1, 2, 3]
    """
    here = place()
    return list(items[here.rank :: here.count])


def gathered(value: T) -> list[T]:
    """The values of all processes, in their order; each waits for the slowest."""
    if place().count == 1:
        return [value]
    from torch import distributed

    if not distributed.is_initialized():
        _meet()
    values: list[Any] = [None] * place().count
    distributed.all_gather_object(values, value)
    return values


def all_of(part: Sequence[T]) -> list[T]:
    """What the processes made of their shares, in the order in which `share` took the items."""
    parts = gathered(list(part))
    return [parts[n % len(parts)][n // len(parts)] for n in range(sum(map(len, parts)))]


def part_at_exit() -> None:
    """Close the connection before the interpreter ends; gloo's threads abort a process that ends with them running."""
    atexit.register(_part)


def follow_parent() -> None:
    """Live as a helper: leave Ctrl-C to the parent, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


class Mapped(Protocol):
    """`map`, or one that works in several processes."""

    def __call__(self, function: Callable[[A], B], items: Iterable[A], /) -> Iterable[B]: ...


@contextmanager
def copies(count: int, what: str) -> Iterator[Mapped]:
    """A `map` over so many copies of this process, in order; the plain one for 1, or where they are unsafe.

    Another thread may hold a lock that a copy would wait for without end, and daemons have no children. Copies are used
    as they inherit what is imported, and do not run the user's script again as fresh processes do.

    Args:
        count: of processes.
        what: they do, for the error.

    Raises:
        InputError: if one of them is killed.
    """
    if count < 2 or sys.platform != "linux" or threading.active_count() > 1 or multiprocessing.current_process().daemon:
        yield map
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of idle threads, as numpy's
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _live_as_copy)
        try:
            with _uninterrupted():
                pool.submit(int)  # starts the copies; half started, they would be waited for without end
            yield pool.map
        except BrokenProcessPool as error:
            raise InputError(
                f"a process that {what} was killed, as systems do when memory runs out; free memory, or do less at once"
            ) from error
        finally:
            _end(pool, others)


def _end(pool: ProcessPoolExecutor, others: set[BaseProcess]) -> None:
    """What is under way is finished, what waits is not begun.

    Of a pool that Ctrl-C has hit at a bad moment, copies wait for work, and Python's end for them.
    """
    try:
        pool.shutdown(cancel_futures=True)
    finally:
        for left in set(multiprocessing.active_children()) - others:
            left.kill()


def _live_as_copy() -> None:
    """One thread of torch each: those of the parent are not in a copy, which would wait for them without end."""
    follow_parent()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C comes after this, not in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)


def _part() -> None:
    from torch import distributed

    if distributed.is_initialized():
        time.sleep(GLOO_FORGETS_S)
        distributed.destroy_process_group()


def _meet() -> None:
    """Connect the processes; torchrun says where, and SLURM where its first machine is."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from torch import distributed

    if "MASTER_ADDR" not in os.environ:
        slurm = SLURMEnvironment()
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}
    distributed.init_process_group("gloo", timeout=PATIENCE, rank=place().rank, world_size=place().count)
    part_at_exit()


def _place(*names: str) -> Place:
    missing = [name for name in names if not os.environ.get(name, "").isdigit()]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: not set to a number by what started this process; start several processes by "
            "torchrun, or by srun with --ntasks-per-node"
        )
    return Place(*(int(os.environ[name]) for name in names))


def _is_step() -> bool:
    """Whether srun started it: a plain command in a batch script stands alone, whatever the job has asked for."""
    return os.environ.get("SLURM_STEP_ID", "").isdigit()
