"""workers.py: engines run cells; they hold no truth. `Local` keeps one warm worker process per device slot.

An engine takes cells in order, skips those that another process holds, looks at them again at the end, and tells how
each one ended. What is done stands in the run folders alone, so the same study may be started as often as wanted, on
every machine that shares them, and a kill at any moment costs nothing but the work since the last save.

A worker is `python -m mixcli.studies.workers`: it imports torch once and is handed one cell per line. On a CPU it
forks for each cell, so that a crash costs that cell; on a GPU, which survives no fork, it runs them one after the other
and is started anew after a crash. It dies with the process that started it: the end of a pipe tells it.
"""

from __future__ import annotations

import glob
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Any, Protocol

from mixcli import options, runs
from mixcli.engine import job
from mixcli.engine.job import How, Job
from mixcli.engine.stopping import Stop
from mixcli.errors import EXIT_CODES, STOPPED, UserError, unexpected
from mixcli.options import Gathered
from mixcli.recipe import Facts
from mixcli.studies.design import Cell

LOOK_AGAIN = 0.5  # seconds between two looks at cells that another process holds
TICK = 0.1  # seconds within which a signal or the clock is noticed
FREED = 10.0  # seconds within which a dead cell's lock must be free
TAIL = 4000  # bytes of a worker's output that may be shown


@dataclass(frozen=True)
class Ended:
    """How a cell ended.

    state    done, failed, stopped (saved and given back because a stop was asked for), or, the first time that it is
             seen so and before its end, busy: another process holds it
    adopted  done already, or by another process meanwhile
    """

    cell: Cell
    state: str
    seconds: float = 0.0
    kind: str = ""
    message: str = ""
    last: tuple[str, ...] = ()
    adopted: bool = False


class Engine(Protocol):
    """Runs cells. Another engine is one more class like this."""

    def run(self, cells: Sequence[Cell], on_end: Callable[[Ended], None], stop: Stop) -> None:
        """Runs what is free, in this order, and returns when every cell has ended or the stop is obeyed.

        A cell whose folder another process holds is skipped and looked at again until it is done or free.
        Raises UserError where no worker can be started, or the disk is full.
        """
        ...


# ---------------------------------------------------------------------------------------------------------- the slots


def slots(devices: str | None, per_device: int, threads: int) -> tuple[str, ...]:
    """The device of each worker: `cpu:2` is two on the CPU, `cuda:0,cuda:1` one each; None: every GPU, or every core.

    Raises UserError for devices that are unknown, repeated, or not there.
    """
    if devices is None:
        found = [f"cuda:{number}" for number in range(_gpus())]
        return tuple(d for d in found for _ in range(per_device)) or ("cpu",) * max(1, cores() // threads)
    words = [word.strip() for word in devices.split(",")]
    made: list[str] = []
    for word in words:
        kind, _, number = word.partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or word.endswith(":"):
            expected = "cpu:N or cuda:0,cuda:1"
            raise UserError("usage", "--devices", "unknown", got=word or "''", expected=expected)
        if [w.partition(":")[0] if kind == "cpu" else w for w in words].count(kind if kind == "cpu" else word) > 1:
            raise UserError("usage", "--devices", "repeated", got=word)
        if kind == "cpu":
            count = int(number) if number else max(1, cores() // threads)
            if not 1 <= count <= cores():
                raise UserError(
                    "usage", "--devices", "no such number of cores", got=word, expected=f"cpu:1 … cpu:{cores()}"
                )
            made += ["cpu"] * count
        else:
            count = _gpus()
            if int(number or 0) >= count:
                expected = f"cuda:N with N < {count}" if count else "cpu"
                raise UserError("usage", "--devices", "no such GPU", got=word, expected=expected)
            made += [f"cuda:{int(number or 0)}"]
    return tuple(device for device in made for _ in range(per_device))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    """GPUs here; torch, which takes seconds to import, is asked only where there may be one."""
    if not glob.glob("/dev/nvidia[0-9]*") and not os.path.exists("/dev/dxg"):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


# ----------------------------------------------------------------------------------------------------- the local engine


class Local:
    """Warm worker processes of this machine, one per slot."""

    def __init__(self, slots: Sequence[str], warn: Callable[[str], None] = lambda line: None, threads: int = 1):
        self.slots, self.warn, self.threads = slots, warn, threads
        self._told: set[str] = set()

    def run(self, cells: Sequence[Cell], on_end: Callable[[Ended], None], stop: Stop) -> None:
        """See `Engine`."""
        queue = Queue(cells, on_end)
        if not queue.look():
            return
        alive, holder = os.pipe()  # held open by this process alone: its end tells every worker's
        workers = [_Worker(slot, alive, self.threads) for slot in self.slots[: len(queue.waiting)]]
        try:
            self._check(workers[0], cells, stop)
            self._serve(workers, queue, stop)
        finally:
            for worker in workers:
                worker.close()
            os.close(holder)
            os.close(alive)

    def _check(self, worker: _Worker, cells: Sequence[Cell], stop: Stop) -> None:
        """Makes a cell of every arm that was not begun yet ready, so that no study fails at its last arm.

        Raises UserError for what would stop it before its first step: a stage that the net has not, a device.
        """
        begun = {cell.arm for cell in cells if cell.job.run.settings.is_file()}
        fresh = {cell.arm: cell for cell in reversed(cells) if cell.arm not in begun}
        for cell in fresh.values():
            worker.ask({"check": worker.task(cell)})
            answer = worker.answer(stop)
            if answer is None:
                return
            if answer["error"] is not None:
                raise _located(cell, UserError(**answer["error"]))

    def _serve(self, workers: list[_Worker], queue: Queue, stop: Stop) -> None:
        """Hands out cells until none is left, or the stop is obeyed."""
        told = False
        while True:
            if stop.kind is not None and not told:
                told = True
                for worker in workers:
                    worker.ask_to_stop(stop.signal or signal.SIGUSR1)
            for worker in workers:
                if not told and worker.ready and worker.cell is None:
                    worker.give(queue.take())
            if told and not any(worker.cell for worker in workers):
                return
            if not queue.left and not any(worker.cell for worker in workers):
                return
            self._listen(workers, queue, told)

    def _listen(self, workers: list[_Worker], queue: Queue, told: bool) -> None:
        with selectors.DefaultSelector() as selector:
            for worker in (w for w in workers if not w.gone):
                selector.register(worker.output, selectors.EVENT_READ, worker)
            for key, _ in selector.select(TICK):
                worker: _Worker = key.data
                event = worker.hear()
                if event is None:
                    self._bury(worker, queue, told)
                    if told:
                        worker.gone = True
                    else:
                        worker.start()
                elif event.pop("ready", False):
                    worker.ready = True
                else:
                    self._end(worker, queue, event)

    def _end(self, worker: _Worker, queue: Queue, event: dict[str, Any]) -> None:
        """What a worker says of its cell."""
        for line in event.pop("warnings", ()):
            if line not in self._told:
                self._told.add(line)
                self.warn(line)
        cell, worker.cell = worker.cell, None
        assert cell is not None
        state = event["state"]
        if state == "busy":
            queue.put_back(cell)
        elif state == "died":
            queue.end(died(cell, event["message"], worker.tail()))
        else:
            ended = Ended(cell, **{**event, "last": tuple(event.get("last", ()))})
            queue.end(ended)
            if ended.kind == "disk_full":
                raise UserError("disk_full", str(cell.job.run.folder), ended.message, hint="Finished cells are kept")

    def _bury(self, worker: _Worker, queue: Queue, told: bool) -> None:
        """A worker process has ended: the cell it had is lost, or it never came to life."""
        code = worker.process.wait()
        cell, worker.cell = worker.cell, None
        if cell is not None:
            queue.end(Ended(cell, "stopped") if told else died(cell, _how(code), worker.tail()))
        elif not worker.ready and not told:
            raise UserError(
                "worker_died", "worker", f"did not start: {_how(code)}", hint=" | ".join(worker.tail()[-2:])
            )
        worker.ready = False


def _located(cell: Cell, error: UserError) -> UserError:
    """A worker's error, which knows options alone, told with the place in the study."""
    origin = cell.job.gathered.origins.get(error.subject.removeprefix("--").replace("-", "_"), error.subject)
    return UserError(error.kind, origin, error.problem, error.got, error.expected, error.hint or "")


class Queue:
    """The cells that are left: waiting, and held by other processes."""

    def __init__(self, cells: Sequence[Cell], on_end: Callable[[Ended], None]):
        self.waiting, self.held = deque(cells), deque[Cell]()
        self._on_end = on_end
        self._seen_held: set[str] = set()  # ids
        self._looked = 0.0

    @property
    def left(self) -> bool:
        return bool(self.waiting or self.held)

    def look(self) -> bool:
        """Sorts out what is done already; returns whether anything is left."""
        for _ in range(len(self.waiting)):
            cell = self.waiting.popleft()
            if cell.job.run.finished() is not None:
                self.end(Ended(cell, "done", adopted=True))
            else:
                self.waiting.append(cell)
        return self.left

    def take(self) -> Cell | None:
        """The next cell that is free."""
        if not self.waiting and self.held and time.monotonic() - self._looked > LOOK_AGAIN:
            self._looked = time.monotonic()
            self.waiting, self.held = self.held, deque()
        while self.waiting:
            cell = self.waiting.popleft()
            if cell.job.run.finished() is not None:
                self.end(Ended(cell, "done", adopted=True))
            elif (error := cell.job.run.failure()) is not None:
                last = tuple(error.get("last", ()))
                self.end(Ended(cell, "failed", kind=error["kind"], message=str(error.get("message", "")), last=last))
            elif cell.job.run.busy():
                self.put_back(cell)
            else:
                return cell
        return None

    def put_back(self, cell: Cell) -> None:
        """A cell that another process holds, to be looked at again."""
        self.held.append(cell)
        if cell.job.run.id not in self._seen_held:
            self._seen_held.add(cell.job.run.id)
            self.end(Ended(cell, "busy"))

    def end(self, ended: Ended) -> None:
        self._on_end(ended)


def died(cell: Cell, how: str, last: list[str]) -> Ended:
    """A cell whose process ended without a word; written down in its folder once its lock is free."""
    error = UserError("worker_died", "worker", f"the process {how}")
    deadline = time.monotonic() + FREED
    while True:
        try:
            with cell.job.run.open() as run:
                if run.finished() is not None:
                    return Ended(cell, "done")
                run.fail(error, "\n".join(last))
            break
        except UserError as refused:
            if refused.kind != job.BUSY or time.monotonic() > deadline:
                break
            time.sleep(TICK)
    return Ended(cell, "failed", kind=error.kind, message=str(error), last=tuple(last))


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def task(cell: Cell, **changes: str) -> dict[str, Any]:
    """A cell as plain values, for a process that `cell` runs in; `changes` are settings outside its identity."""
    settings = options.flat(cell.job.settings) | changes
    return {"settings": settings, "facts": asdict(cell.job.facts), "id": cell.job.run.id}


class _Worker:
    """One worker process, as its parent sees it."""

    def __init__(self, slot: str, alive: int, threads: int):
        self.slot, self._alive, self._threads = slot, alive, threads
        self.cell: Cell | None = None
        self.gone = False
        self.start()

    def start(self) -> None:
        """Starts the process, anew after a crash."""
        self.ready, self._heard = False, b""
        with suppress(AttributeError):
            self._forget()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        environment = {key: value for key, value in os.environ.items() if not key.startswith(options.VARIABLE)}
        pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # a pool does not survive a fork
        environment |= dict.fromkeys(pools, str(self._threads))
        kind, _, number = self.slot.partition(":")
        if kind == "cuda":  # each sees only its device
            seen = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
            environment["CUDA_VISIBLE_DEVICES"] = seen[int(number)] if int(number) < len(seen) else number
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mixcli.studies.workers", kind, str(self._alive)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, pass_fds=[self._alive], env=environment,
            start_new_session=True,  # a Ctrl-C reaches the parent alone, which passes it on once
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input, self.output = self.process.stdin, self.process.stdout

    def give(self, cell: Cell | None) -> None:
        """Hands a cell over."""
        if cell is None:
            return
        self.cell = cell
        self.errors.seek(0)
        self.errors.truncate()
        self.ask(self.task(cell))

    def task(self, cell: Cell) -> dict[str, Any]:
        """A cell as this worker is handed it."""
        return task(cell, device="cpu" if self.slot == "cpu" else "cuda")

    def ask(self, question: Mapping[str, Any]) -> None:
        """Says a line to the worker."""
        with suppress(BrokenPipeError):  # its death is heard at its output
            self._input.write(json.dumps(question).encode() + b"\n")
            self._input.flush()

    def answer(self, stop: Stop) -> dict[str, Any] | None:
        """Waits for what the worker says to a question, not for that it is ready; None where a stop came first.

        Raises UserError: worker_died.
        """
        while stop.kind is None:
            if not select.select([self.output], [], [], TICK)[0]:
                continue
            event = self.hear()
            if event is None:
                hint = " | ".join(self.tail()[-2:])
                raise UserError("worker_died", "worker", f"did not start: {_how(self.process.wait())}", hint=hint)
            if not event.pop("ready", False):
                return event
            self.ready = True
        return None

    def hear(self) -> dict[str, Any] | None:
        """The next thing the worker says; None at its end."""
        while b"\n" not in self._heard:
            more = os.read(self.output.fileno(), 65536)
            if not more:
                return None
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def ask_to_stop(self, number: int) -> None:
        """The cell at work saves and ends; an idle worker ends."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def tail(self) -> list[str]:
        """The last lines of the output on stderr."""
        size = self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, size - TAIL))
        lines = self.errors.read().decode(errors="replace").splitlines()
        return [line for line in lines if line.strip()][-runs.LAST_LINES :]

    def close(self) -> None:
        """Ends the process: at once where it has a cell or is not awake yet."""
        if self.cell is not None or not self.ready:
            self.process.kill()
        with suppress(BrokenPipeError):
            self._input.close()
        self.process.wait()
        self._forget()

    def _forget(self) -> None:
        with suppress(BrokenPipeError):
            self._input.close()
        self.output.close()
        self.errors.close()


# ---------------------------------------------------------------------------------------------- inside a worker process


class _Quiet:
    """Remembers warnings; the study tells the rest."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def note(self, line: str) -> None: ...

    def announce(self, line: str) -> None: ...

    def warn(self, subject: str, problem: str) -> None:
        self.warnings.append(f"{subject}: {problem}")

    def step(self, done: int, total: int) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...


def serve(kind: str, alive: int) -> None:
    """A worker: cells come in on stdin, how they ended goes out on what was stdout; ends with its parent."""
    import faulthandler

    faulthandler.enable()
    voice = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    with Stop().listening() as stop:
        watch = _Watch([alive])
        from mixcli.engine import training  # noqa: F401  what a fork must not import again

        if kind == "cpu":
            watch.end()  # no fork beside a thread
        _say(voice, {"ready": True})
        for line in _lines(alive, stop):
            task = json.loads(line)
            if "check" in task:
                _say(voice, check(task["check"]))
            elif kind == "cuda":
                _say(voice, cell(task, stop))
            else:
                _forked(task, stop, alive, voice)
            if stop.signal is not None:
                return


def cell(task: Mapping[str, Any], stop: Stop) -> dict[str, Any]:
    """Runs one cell and tells how it ended."""
    begun, reporter = time.monotonic(), _Quiet()

    def ended(state: str, error: UserError | None = None, last: Iterable[str] = ()) -> dict[str, Any]:
        told = {} if error is None else {"kind": error.kind, "message": str(error), "last": list(last)}
        seconds = round(time.monotonic() - begun, 3)
        return {"state": state, "seconds": seconds, **told, "warnings": reporter.warnings}

    made = _job(task)
    try:
        if made.run.finished() is not None:
            return {**ended("done"), "adopted": True}
        job.train(made, reporter, stop, How(latest=False, record=True))
        return ended("done")
    except UserError as error:
        if error.kind == job.BUSY:
            return {"state": "busy"}
        if error.kind in STOPPED:
            return ended("stopped", error)
        return ended("failed", error, (made.run.failure() or {}).get("last", ()))
    except Exception as error:  # nobody's mistake, before there was a folder to write it down in
        return ended("failed", unexpected(error, ""))


def check(task: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a cell ready, writes nothing, and tells what would stop it before its first step."""
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork; each child sets its own number
    try:
        job.check(_job(task), _Quiet())
        _warmed.add(task["settings"]["method"])
        return {"error": None}
    except UserError as error:
        return {"error": error.document()}
    except Exception as error:
        return {"error": unexpected(error, "").document()}


def _job(task: Mapping[str, Any]) -> Job:
    train = options.from_flat(task["settings"], "cell")
    facts = Facts(**{**task["facts"], "size": tuple(task["facts"]["size"])})
    run = runs.locate(train, task["id"])
    return Job(Gathered(train, [], {}), train, facts, run, resume=True)


def _forked(task: Mapping[str, Any], stop: Stop, alive: int, voice: IO[str]) -> None:
    """Runs a cell in a child, so that its crash is survived; passes a signal on to it, once."""
    _warm(task)
    watched, held = os.pipe()  # the child ends where this process does
    child = os.fork()
    if child == 0:
        code = EXIT_CODES["internal"]
        try:
            os.close(held)
            _Watch([alive, watched])
            _say(voice, cell(task, stop))
            code = 0
        finally:
            os._exit(code)
    os.close(watched)
    try:
        code = _wait(child, stop, alive)
    finally:
        os.close(held)
    if code != 0:
        _say(voice, {"state": "died", "message": _how(code)})


def _warm(task: Mapping[str, Any]) -> None:
    """Imports what a cell needs, once for all children: the first cell is made ready, and forgotten."""
    import torch

    from mixcli.engine import training
    from mixcli.mix import implementation

    made = _job(task)
    with suppress(Exception):  # the cell itself tells
        if not _warmed:
            torch.set_num_threads(1)  # threads do not survive a fork; each child sets its own number
            training.ready(made.settings, made.run, _Quiet(), Stop())
        elif made.settings.method.name not in _warmed:
            implementation(made.settings.method)
    _warmed.add(made.settings.method.name)


_warmed: set[str] = set()  # names of methods


def _wait(child: int, stop: Stop, alive: int) -> int:
    """The exit code of a child, negative for a signal."""
    passed_on = False
    while True:
        if stop.signal is not None and not passed_on:
            passed_on = True
            os.kill(child, stop.signal)
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if select.select([alive], [], [], 0.02)[0]:  # the parent is gone, and the child knows it too
            os._exit(1)


def _lines(alive: int, stop: Stop) -> Iterable[bytes]:
    """The lines on stdin, until it or the parent ends, or a signal comes."""
    heard = b""
    while stop.signal is None:
        if b"\n" in heard:
            line, _, heard = heard.partition(b"\n")
            yield line
            continue
        found = select.select([0, alive], [], [], TICK)[0]
        if alive in found:
            return
        if 0 in found:
            more = os.read(0, 65536)
            if not more:
                return
            heard += more


class _Watch:
    """A thread that ends this process when the other end of a pipe closes: whoever held it is dead."""

    def __init__(self, pipes: Sequence[int]):
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._look, args=(pipes,), daemon=True)
        self._thread.start()

    def _look(self, pipes: Sequence[int]) -> None:
        if self._ended not in select.select([self._ended, *pipes], [], [])[0]:
            os._exit(EXIT_CODES["internal"])

    def end(self) -> None:
        """Looks no longer."""
        os.close(self._end)
        self._thread.join()
        os.close(self._ended)


def _say(voice: IO[str], event: Mapping[str, Any]) -> None:
    voice.write(json.dumps(event) + "\n")
    voice.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
