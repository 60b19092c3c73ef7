"""Blocks on a Dask cluster: on this machine, on Slurm, or on one that runs already.

Dask is an extra (``pip install 'twostream-connectomics[cluster]'``) and is imported where it is used.

Knows Dask; must not know what is computed.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, TypeVar

from twostream import __version__
from twostream.base import progress
from twostream.base.errors import ClusterError, InputError, TwoStreamError
from twostream.volume.execution import Executor, InProcess

Item = TypeVar("Item")
Result = TypeVar("Result")

EXTRA = "pip install 'twostream-connectomics[cluster]'"
IN_FLIGHT = 2
"""Blocks that are given to a cluster at once, for each of its threads: one runs, one waits."""
SECONDS = 60
"""How long a cluster may take to answer at first."""
SECONDS_ALONE = 300
"""How long a cluster may have no worker in the middle of a stage: the time in which a job or a node comes back."""
SECONDS_BETWEEN_LOOKS = 10
"""While no block comes back, it is looked whether there are workers."""


class Dask(Executor):
    """Runs blocks on the workers of a Dask cluster.

    A block whose worker dies is run again, three times (Dask's ``allowed-failures``).

    Args:
        client: ``distributed.Client``, connected.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def map(self, fn: Callable[[Item], Result], blocks: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """See ``Executor``.

        Raises:
            ClusterError: a block makes its workers die, no worker is left, or the cluster is gone.
        """
        from distributed import KilledWorker

        # A task and no scattered data: the scheduler makes it again when the worker that holds it dies.
        function = self._client.submit(pickle.loads, pickle.dumps(fn), pure=False)
        waiting, block_of = iter(blocks), {}

        def submit(number: int) -> None:
            for block in islice(waiting, number):
                block_of[self._client.submit(_call, function, block, pure=False)] = block

        try:
            submit(IN_FLIGHT * max(1, sum(self._client.nthreads().values())))
            while block_of:
                for future in self._some_of(block_of):
                    block = block_of.pop(future)
                    try:
                        result = future.result()
                    except KilledWorker as error:
                        raise ClusterError(
                            f"block {block} made {error.allowed_failures + 1} workers die, one after the other. Did it "
                            f"take more memory than a worker has? The logs of the workers say more."
                        ) from None
                    except CancelledError:
                        raise _gone() from None
                    submit(1)
                    yield block, result
        finally:
            if block_of and self._client.status == "running":
                self._client.cancel(list(block_of))

    def _some_of(self, futures: Iterable[Any]) -> list[Any]:
        """Those that are done, at least one.

        Raises:
            ClusterError: no worker has been there for ``SECONDS_ALONE``, or the cluster is gone.
        """
        from distributed import wait

        futures, alone_since = list(futures), None
        while True:
            try:
                done: list[Any] = list(wait(futures, timeout=SECONDS_BETWEEN_LOOKS, return_when="FIRST_COMPLETED").done)
                return done
            except CancelledError:
                raise _gone() from None
            except TimeoutError:
                if self._client.status != "running":
                    raise _gone() from None
                alone_since = None if self._client.nthreads() else alone_since or time.monotonic()
                if alone_since and time.monotonic() - alone_since > SECONDS_ALONE:
                    raise ClusterError(
                        f"the cluster has had no worker for {SECONDS_ALONE} s. Start workers and repeat the command; "
                        f"blocks that are done are kept."
                    ) from None


def _gone() -> ClusterError:
    return ClusterError(
        "the cluster lost its blocks: its scheduler was stopped or cannot be reached any more. Start it again and "
        "repeat the command; blocks that are done are kept."
    )


def _call(fn: Callable[[Item], Result], block: Item) -> Result:
    return fn(block)


@contextmanager
def open_executor(
    cluster: str | None, num_workers: int | None = None, memory_limit: int | None = None
) -> Iterator[Executor]:
    """An executor, as the options ``--cluster`` and ``--workers`` say.

    Args:
        cluster: None: this process. "local": processes of this machine. "slurm": jobs, as ``jobqueue.yaml`` of
            dask-jobqueue describes them. Else the address of a scheduler, such as "tcp://10.0.0.1:8786".
        num_workers: processes or jobs to start; None: one for each core of this machine.
        memory_limit: bytes that a process of "local" may hold before it is stopped; None: its share of the machine.

    Raises:
        InputError: the options contradict each other, or Dask is not installed.
        ClusterError: the cluster cannot be reached, or runs another version.
    """
    if cluster is None:
        if num_workers is not None:
            raise InputError("--workers needs --cluster local or --cluster slurm.")
        yield InProcess()
        return
    is_address = "://" in cluster
    if not is_address and cluster not in ("local", "slurm"):
        raise InputError(
            f"--cluster is {cluster!r}; expected local, slurm, or the address of a scheduler (tcp://HOST:PORT)."
        )
    if is_address and num_workers is not None:
        raise InputError(f"--workers cannot be given with {cluster}: the workers of that cluster run already.")
    if cluster == "slurm" and num_workers is None:
        raise InputError("--cluster slurm needs --workers N, the number of jobs.")
    needed = ["distributed", *(["dask_jobqueue"] if cluster == "slurm" else [])]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise InputError(f"--cluster {cluster} needs {' and '.join(missing)}, not installed here: {EXTRA}.")
    with ExitStack() as stack:
        client = stack.enter_context(_client(cluster, num_workers, memory_limit, stack))
        _check_versions(client, cluster)
        threads = sum(client.nthreads().values())
        link = client.dashboard_link if importlib.util.find_spec("bokeh") else ""
        shown = f"; dashboard {link}" if link else ""
        progress.say(f"  blocks run on {cluster}: {len(client.nthreads())} workers, {threads} threads{shown}")
        yield Dask(client)


def _client(cluster: str, num_workers: int | None, memory_limit: int | None, stack: ExitStack) -> Any:
    import dask
    from distributed import Client, LocalCluster

    try:
        if cluster == "local":
            workers = num_workers or os.cpu_count() or 1
            if memory_limit is not None:
                # Blocks are made to fit. Left to itself, Dask pauses a worker for good at four fifths of the limit.
                settings: dict[str, Any] = {"target": False, "spill": False, "pause": False, "terminate": 1.0}
                stack.enter_context(dask.config.set({f"distributed.worker.memory.{k}": v for k, v in settings.items()}))
            allowed = {} if memory_limit is None else {"memory_limit": memory_limit}
            local = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", **allowed)
            where: Any = stack.enter_context(local)
        elif cluster == "slurm":
            from dask_jobqueue import SLURMCluster

            try:
                where = stack.enter_context(SLURMCluster())
            except ValueError as error:
                why = " ".join(str(error).split())
                raise InputError(
                    f"--cluster slurm: the jobs are not described ({why}). Write cores, memory and walltime "
                    f"of one job under jobqueue: slurm: in ~/.config/dask/jobqueue.yaml (docs/scaling.md)."
                ) from None
            where.adapt(minimum_jobs=num_workers, maximum_jobs=num_workers)  # a job that ended is started again
            progress.say(f"  waiting for the first of {num_workers} jobs; squeue shows them, Ctrl-C gives up")
        else:
            where = cluster
        client = Client(where, timeout=SECONDS)
        client.wait_for_workers(1, timeout=SECONDS if cluster != "slurm" else None)
        return client
    except TwoStreamError:
        raise
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"--cluster {cluster}: no worker answers ({' '.join(str(error).split())}). Is the scheduler running, and "
            f"has it workers?"
        ) from None


def _check_versions(client: Any, cluster: str) -> None:
    """Raise ClusterError unless all workers run this version of the package."""
    here = _version()
    found = client.run(_version)
    other = {address: version for address, version in found.items() if version != here}
    if other:
        address, version = next(iter(other.items()))
        raise ClusterError(
            f"--cluster {cluster}: {len(other)} of {len(found)} workers cannot run this version: {address} has "
            f"{version}, here it is {here}. Install the same version where they run."
        )


def _version() -> str:
    return __version__
