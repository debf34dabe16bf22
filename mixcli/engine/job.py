"""job.py: one training job, from settings to result: the one path of `train` and of every cell of a study.

A job is a run that could be started: complete settings, what is known of the data, and the run's folder. `train` takes
the folder's lock before torch is imported, reports a finished run instead of repeating it, goes on from a checkpoint,
and lets the loop write the rest. An error that ends a recorded job is written down in the run folder.
"""

from __future__ import annotations

import glob
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mixcli import options, recipe, runs, toml
from mixcli.engine import timing
from mixcli.engine.stopping import Stop
from mixcli.errors import STOPPED, UserError, unexpected
from mixcli.fields import Given, parse
from mixcli.files import write_atomic
from mixcli.options import Gathered
from mixcli.recipe import Facts, Train
from mixcli.runs import Run

if TYPE_CHECKING:
    from mixcli.engine.training import Training

BUSY = "run_locked"  # the kind of error of a run that another process holds


class Reporter(Protocol):
    """What a job tells while it goes on."""

    def note(self, line: str) -> None: ...
    def announce(self, line: str) -> None: ...
    def warn(self, subject: str, problem: str) -> None: ...
    def step(self, done: int, total: int) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Job:
    """A run that could be started: `source` is the checkpoint of another run, or the one named, to go on from."""

    gathered: Gathered
    settings: Train
    facts: Facts
    run: Run
    source: Path | None = None
    resume: bool = False


class How(NamedTuple):
    """How a job is trained.

    overwrite       delete the run's files and start again
    allow_previous  go on from previous.ckpt where run.ckpt is damaged
    latest          the run becomes the one that `latest` names
    record          an error that ends it is written to error.json
    """

    overwrite: bool = False
    allow_previous: bool = False
    latest: bool = True
    record: bool = False


# ------------------------------------------------------------------------------------------------------- finding a job


def new(gathered: Gathered, resume: bool = False) -> Job:
    """The run that the settings name. Reads what is known of the data; makes nothing."""
    runs.check_root(Path(gathered.train.runs))
    completed, facts = complete(gathered)
    run = located(completed, facts)
    if resume and run.state == "absent":
        _refuse_other_code(completed, run)
    return Job(gathered, completed, facts, run, resume=resume)


def _refuse_other_code(completed: Train, run: Run) -> None:
    """Raises UserError where what is to go on is an unfinished run of a file that has changed since."""
    for path in sorted(run.folder.parent.glob(f"{glob.escape(run.folder.name[:-12])}*/settings.toml")):
        recorded: dict[str, Any] = {}
        with suppress(UserError):  # a damaged file is another's concern
            recorded = toml.read(path)
        error = options.other_code(completed, recorded) if recorded else None
        if error is not None and Run(path.parent).state == "unfinished":
            error.subject = f"{path.parent} {error.subject}"
            raise error


def named(text: str, typed: Mapping[str, Any], environ: Mapping[str, str], warn: Callable[[Gathered], None]) -> Job:
    """The run of `--resume-from`: its settings come from its folder, and what is typed must agree."""
    source = runs.find(text, Path(options.runs_root(typed, environ)))
    if source.parent.name == "epochs":
        raise UserError("mismatch", str(source), "weights only, not a resume source", hint="Give the run folder")
    folder = source.parent
    run = Run(folder if runs.NAME.fullmatch(folder.name) else folder.resolve())  # `.` has no id in its name
    source = run.folder / source.name
    gathered = options.continued(typed, run.settings, environ)
    gathered = gathered._replace(train=gathered.train.model_copy(update={"runs": str(run.folder.parent)}))
    warn(gathered)
    runs.check_root(run.folder.parent)
    completed, facts = complete(gathered)
    if options.identity(completed, facts, run.parent) != run.id:
        raise UserError("data_corrupt", str(run.folder), "settings or data differ from those the run was started with")
    return Job(gathered, completed, facts, run, source, resume=True)


def extended(job: Job, to: str, resume: bool, announce: Callable[[str], None]) -> Job:
    """A new run that goes on from the end of `job`'s to more epochs; `to` is the text typed."""
    assert job.settings.epochs is not None
    epochs = parse(Train.model_fields["epochs"], Given(to, "--extend-to", text=True))
    if epochs <= job.settings.epochs:
        problem = f"the run has {job.settings.epochs} epochs"
        raise UserError("config", "--extend-to", problem, got=epochs, expected="more")
    source = job.source or runs.checkpoint_in(job.run.folder)
    longer = job.settings.model_copy(update={"epochs": epochs})
    run = located(longer, job.facts, job.run.id)
    run.extends = job.run
    effect = f"the learning-rate schedule is computed anew for {epochs} epochs"
    announce(f"extends run {job.run.id} of {job.settings.epochs} epochs; {effect}")
    return Job(job.gathered, longer, job.facts, run, source, resume)


def complete(gathered: Gathered, look: Callable[[Train], Facts] | None = None) -> tuple[Train, Facts]:
    """The settings with the recipe's values in open places, and what is known of the data, found by `look`."""
    from mixcli.data import sources

    try:
        facts = (look or sources.look)(gathered.train)
        return recipe.complete(gathered.train, facts), facts
    except UserError as error:
        raise gathered.located(error) from error


def located(completed: Train, facts: Facts, parent: str | None = None) -> Run:
    """The run of complete settings, whether it is there or not."""
    return runs.locate(completed, options.identity(completed, facts, parent))


def checked(job: Job) -> Job:
    """The job, unless its settings contradict each other."""
    try:
        recipe.kept_epochs(job.settings)
    except UserError as error:
        raise job.gathered.located(error) from error
    return job


# ----------------------------------------------------------------------------------------------------- what it would do


def plan(job: Job, reporter: Reporter, measure: bool = False) -> dict[str, Any]:
    """What would be started; all that `train` refuses before its first step is refused here too.

    measure  also make some steps of it, to tell the minutes of all; raises UserError where one is not finite
    """
    ready = check(job, reporter)
    pace = _engine(job, lambda _: timing.pace(ready, timing.PATIENCE)) if measure else None
    images, batch, epochs = recipe.training_images(job.settings, job.facts), job.settings.batch, job.settings.epochs
    beside, steps = recipe.unlabelled_images(job.settings, job.facts), recipe.epoch_steps(job.settings, job.facts)
    assert batch is not None and epochs is not None
    unlabelled = {"unlabelled_images": beside, "unlabelled_batch": recipe.unlabelled_batch(job.settings, job.facts)}
    return {
        "run": str(job.run.folder), "id": job.run.id, "state": job.run.state,
        "resume_from": str(job.source) if job.source else None, "parent": job.run.parent,
        "dataset": job.settings.dataset, "images": images, "test_images": job.facts.test_images,
        "classes": job.facts.classes, "batch": batch, **(unlabelled if beside else {}), "steps_per_epoch": steps,
        "epochs": epochs, "steps": steps * epochs,
        **({} if pace is None else {"minutes": pace.seconds * steps * epochs / 60, "seconds_per_step": pace.seconds,
                                    "measured_steps": pace.steps}),
        "settings": options.flat(job.settings),
    }  # fmt: skip


def check(job: Job, reporter: Reporter) -> Training:
    """The run about to make its first step. Raises UserError for whatever would stop it there; writes nothing."""
    return _engine(job, lambda training: training.ready(job.settings, job.run, reporter, Stop()))


# ------------------------------------------------------------------------------------------------------------- training


def train(job: Job, reporter: Reporter, stop: Stop, how: How | None = None) -> dict[str, Any]:
    """Trains under the run's lock, or reports the run where it is finished already; returns its result.

    Raises UserError: run_locked where another process holds it, run_exists where it is unfinished and neither resumed
    nor overwritten, and whatever training raises.
    """
    how = how or How()
    result = None if how.overwrite else job.run.finished()
    if result is not None:
        return _report_finished(job, result, reporter)
    with job.run.open() as run:
        result = None if how.overwrite else run.finished()  # another process may have ended it a moment ago
        if result is not None:
            return _report_finished(job, result, reporter)
        if run.claimed:
            reporter.warn(str(run.folder.parent), "no kernel locks here, claim files used")
        if run.state == "unfinished" and not job.resume and not how.overwrite:
            raise UserError("run_exists", str(run.folder), "unfinished", hint="Use --resume or --overwrite")
        if not how.record:
            return _train(job, reporter, stop, how)
        return _recorded(run, lambda: _train(job, reporter, stop, how))


def _train(job: Job, reporter: Reporter, stop: Stop, how: How) -> dict[str, Any]:
    """Trains a run whose lock is held, from the start or from a checkpoint."""
    run, start = job.run, job.source if how.overwrite else _start(job)

    def begin() -> None:
        if how.overwrite:
            run.clear()
        if run.state == "absent":
            run.begin(options.to_toml(job.settings))
        if how.latest:
            run.become_latest()
        at_zero = start is None and job.resume
        reporter.announce(f"run {run.folder}" + (", starts at step 0" if at_zero else ""))

    def go(training: Any, start: Path | None) -> dict[str, Any]:
        return training.train(job.settings, run, reporter, stop, resume_from=start, begin=begin)

    try:
        return _engine(job, lambda training: go(training, start))
    except UserError as error:
        damaged = error.kind == "checkpoint_corrupt" and start == run.checkpoint
        if not (how.allow_previous and damaged and run.previous.exists()):
            raise
        reporter.warn(str(start), f"{error.problem}; going on from previous.ckpt")
        return _engine(job, lambda training: go(training, run.previous))


def _start(job: Job) -> Path | None:
    """The checkpoint to go on from: the one that was named, or the run's own before that of the run it extends."""
    own = job.run.checkpoint
    named = job.source is not None and job.source.parent == job.run.folder
    return own if own.is_file() and not named else job.source


def _report_finished(job: Job, result: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    reporter.note(f"run {job.run.folder} finished at epoch {result.get('epochs')}; nothing to do")
    return result


def _recorded(run: Run, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `call` returns; an error that is no stop asked for stays in the run folder."""
    try:
        return call()
    except UserError as error:
        if error.kind not in STOPPED and error.kind != "disk_full":
            cause = error.__cause__
            trace = [] if cause is None or isinstance(cause, UserError) else traceback.format_exception(cause)
            with suppress(UserError):
                run.fail(error, "".join(trace))
        raise


def _engine(job: Job, call: Callable[[Any], Any]) -> Any:
    """A library call. An exception that is nobody's mistake leaves its trace in the run folder, where there is one."""
    try:
        from mixcli.engine import training

        return call(training)
    except UserError as error:
        raise job.gathered.located(error) from error
    except Exception as error:
        if not job.run.settings.is_file():
            raise
        with suppress(UserError):  # on a full disk the line itself has to do
            write_atomic(job.run.log, traceback.format_exc().encode(errors="backslashreplace"))
        raise unexpected(error, f"Trace: {job.run.log}") from error
