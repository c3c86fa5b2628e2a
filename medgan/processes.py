"""The processes that share one job, as `torchrun` or SLURM's `srun` start them; without either there is one.

Each knows its own number from the environment, so splitting a table needs no talk between them.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from medgan.errors import ConfigError

__all__ = ["PATIENCE", "Place", "all_of", "follow_parent", "gathered", "is_first", "part_at_exit", "place", "share"]

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # of a process that is done and waits for the others


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


def _end_with(parent: BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)


def _part() -> None:
    from torch import distributed

    if distributed.is_initialized():
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
