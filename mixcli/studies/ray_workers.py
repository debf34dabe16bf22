"""ray_workers.py: the engine that hands cells to a Ray cluster, one Core task each.

Core and not Tune: the list of cells is fixed, and what is done stands in the run folders. These must therefore be
shared by all nodes, which is tried before the first cell. A lost node is retried by Ray, and the cell goes on from its
last checkpoint; a cell's own error is a result and is not. Fractions of a GPU share its memory: Ray does not keep them
apart.
"""

from __future__ import annotations

import logging
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixcli import own_code
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.studies import workers
from mixcli.studies.design import Cell
from mixcli.studies.workers import Ended, Queue

LOOK = 1.0  # seconds within which a running cell hears that it is to stop
TICK = 0.2  # seconds between two looks at what has ended
ANSWER = 120.0  # seconds within which every node must have answered


@dataclass(frozen=True)
class Ray:
    """A cluster of this machine's own, or the one at an address.

    address       of a running cluster, or `auto`; None: one is started here, for this host alone, and ended
    gpus, cpus    that one cell takes, fractions allowed
    max_retries   of a cell whose node was lost
    """

    address: str | None = None
    gpus: float = 0.0
    cpus: float = 1.0
    max_retries: int = 2
    warn: Callable[[str], None] = lambda line: None

    def run(self, cells: Sequence[Cell], on_end: Callable[[Ended], None], stop: Stop) -> None:
        """See `workers.Engine`. Raises UserError: no cluster, none with room for a run, folders that are not shared."""
        queue = Queue(cells, on_end)
        if not queue.look():
            return
        ray = _imported()
        with _Cluster(ray, self.address):
            root = Path(cells[0].job.settings.runs).resolve()
            _check_shared(ray, root, Path(cells[0].job.settings.data_dir).resolve())
            stop_file = root / f".stop-{secrets.token_hex(8)}"
            try:
                self._serve(ray, queue, stop, stop_file)
            finally:
                stop_file.unlink(missing_ok=True)

    def _serve(self, ray: Any, queue: Queue, stop: Stop, stop_file: Path) -> None:
        """Keeps as many cells in flight as the cluster holds, until none is left or the stop is obeyed."""
        run = ray.remote(_cell).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.max_retries, retry_exceptions=False
        )
        flying: dict[Any, Cell] = {}
        while queue.left or flying:
            if stop.kind is not None and not stop_file.exists():
                stop_file.write_text(str(int(stop.signal or signal.SIGUSR1)))
            while stop.kind is None and len(flying) < self._room(ray) and (cell := queue.take()) is not None:
                flying[run.remote(_task(cell), str(stop_file))] = cell
            if stop.kind is not None and not flying:
                return
            if not flying:
                time.sleep(TICK)
                continue
            ended, _ = ray.wait(list(flying), num_returns=1, timeout=TICK)
            for reference in ended:
                self._end(ray, reference, flying.pop(reference), queue)

    def _room(self, ray: Any) -> int:
        """How many cells the cluster can run at once. Raises UserError where not one."""
        held = ray.cluster_resources()
        room = min(
            int(held.get(kind, 0) / share + 1e-9) for kind, share in (("CPU", self.cpus), ("GPU", self.gpus)) if share
        )
        if not room:
            needed = f"{self.cpus:g} CPUs and {self.gpus:g} GPUs per run"
            raise UserError("distributed", "--engine ray", "the cluster has no room for a run", expected=needed)
        return room

    def _end(self, ray: Any, reference: Any, cell: Cell, queue: Queue) -> None:
        try:
            event = ray.get(reference)
        except ray.exceptions.RayError as error:  # its process or node is gone for the last time
            queue.end(workers.died(cell, f"was lost ({type(error).__name__})", []))
            return
        for line in event.pop("warnings", ()):
            self.warn(line)
        if event["state"] == "busy":
            queue.put_back(cell)
        else:
            queue.end(Ended(cell, **{**event, "last": tuple(event.get("last", ()))}))


class _Cluster:
    """A connection to a cluster, ended on the way out; one of its own is bound to this host and ends with it."""

    def __init__(self, ray: Any, address: str | None):
        self.ray, self.address = ray, address

    def __enter__(self) -> None:
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # a lost node is told by how its cells end
        own = {"num_cpus": workers.cores(), "include_dashboard": False} if self.address is None else {}
        try:
            self.ray.init(
                address=self.address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
                **own,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problem = "no Ray cluster there" if self.address else "Ray did not start"
            raise UserError("distributed", "--address", problem, got=self.address, hint=reason) from error

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()


def _imported() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        hint = "pip install 'mixcli[ray]', on every node"
        raise UserError("usage", "--engine", "Ray is not installed", got="ray", hint=hint) from None
    return ray


def _check_shared(ray: Any, root: Path, data: Path) -> None:
    """Every node must read what is written here. Raises UserError naming those that do not."""
    root.mkdir(parents=True, exist_ok=True)
    token, file = secrets.token_hex(16), root / f".shared-{secrets.token_hex(8)}"
    file.write_text(token)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        asked = {
            ray.remote(_read)
            .options(num_cpus=0, scheduling_strategy=strategy(node["NodeID"], soft=False))
            .remote(str(file)): node["NodeManagerAddress"]
            for node in nodes
        }
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER)
        blind = [address for reference, address in asked.items()
                 if reference not in answered or ray.get(reference) != token]  # fmt: skip
    finally:
        file.unlink(missing_ok=True)
    if blind:
        problem = f"{', '.join(sorted(set(blind)))} cannot read what is written here"
        raise UserError("distributed", str(root), problem, hint="Give --runs a folder that all nodes share")


def _task(cell: Cell) -> dict[str, Any]:
    """A cell as a task: folders absolute, since a node's working directory is its own."""
    train = cell.job.settings
    folders = {"runs": str(Path(train.runs).resolve()), "data_dir": str(Path(train.data_dir).resolve())}
    task = workers.task(cell, **folders, device="auto")
    return {**task, "settings": _anywhere(task["settings"])}


def _anywhere(values: dict[str, Any]) -> dict[str, Any]:
    """Flat settings whose methods and nets in files are found from any working directory."""
    inside = {key: _anywhere(inner) for key, inner in values.items() if isinstance(inner, dict)}
    named = {key: own_code.absolute(values[key]) for key in ("method", "net") if key in values}
    lists = {"methods": [own_code.absolute(name) for name in values["methods"]]} if "methods" in values else {}
    return {**values, **inside, **named, **lists}


# ------------------------------------------------------------------------------------------------------------ on a node


def _read(path: str) -> str | None:
    with suppress(OSError):
        return Path(path).read_text()
    return None


def _cell(task: Mapping[str, Any], stop_file: str) -> dict[str, Any]:
    """Runs one cell; ends it early, saved, when the stop file appears."""
    stop, ended = Stop(), threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK):
            with suppress(OSError, ValueError):
                stop.signal = signal.Signals(int(Path(stop_file).read_text()))
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        return workers.cell(task, stop)
    finally:
        ended.set()
