"""Resuming between any two steps repeats the uninterrupted run bit for bit (G01 to G05, G18 to G20, G41)."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from mixcli import options
from mixcli.engine import checkpoint, training
from mixcli.engine.stopping import Stop
from mixcli.engine.training import train
from mixcli.errors import UserError
from mixcli.runs import Run, name
from mixcli.settings import Manifold, SynerMix
from tests import fakes
from tests.engine import harness

FULL = SynerMix(inter=Manifold(), intra_view="augmented")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return harness.run_through(tmp_path_factory.mktemp("whole"), harness.settings(FULL, ema=0.9))


@pytest.mark.parametrize("cut", range(1, harness.STEPS * harness.EPOCHS))
def test_every_cut_is_exact(tmp_path, whole, cut):
    resumed = harness.run_cut(tmp_path, harness.settings(FULL, ema=0.9), cut)
    assert harness.same_bits(whole, resumed)
    assert harness.without_times(whole.run.rows()) == harness.without_times(resumed.run.rows())


@pytest.mark.parametrize("method", fakes.METHOD_CASES, ids=fakes.label)
def test_every_method_resumes_in_the_middle_of_an_epoch(tmp_path, method):
    train = harness.settings(method, epochs=2)
    one = harness.run_through(tmp_path / "one", train)
    assert harness.same_bits(one, harness.run_cut(tmp_path / "two", train, 9))


def test_adamw_at_a_constant_rate_resumes(tmp_path):
    train = harness.settings(epochs=2, optimizer="adamw", lr=0.002, schedule="constant")
    one = harness.run_through(tmp_path / "one", train)
    assert harness.same_bits(one, harness.run_cut(tmp_path / "two", train, 9))
    assert [row["lr"] for row in one.run.rows()] == [0.002, 0.002]


def test_a_run_from_published_weights_goes_on_where_these_are_not_at_hand(tmp_path, monkeypatch):
    published, of_run = [], training.of_run
    monkeypatch.setattr(training, "of_run", lambda *given, pretrained: published.append(pretrained) or of_run(*given))
    made = harness.training(tmp_path, harness.settings(epochs=2), stop_at=8)
    with made.machine.session(), pytest.raises(UserError, match="stopped by"):
        made.go()
    train(made.settings, made.run, harness.Quiet(), Stop(), resume_from=made.run.checkpoint)
    made.run.close()
    assert published == [True, False]


def reset_momentum(training):
    training.state.optimizer.state.clear()


def reset_schedule(training):
    training.state.schedule_at(0)


def reset_ema(training):
    training.state.ema.load_state_dict({**training.state.ema.state_dict(), "n_averaged": torch.tensor(0)})


def other_key(purpose):
    def tamper(training):
        keyed = training._random
        training._random = lambda name, step: keyed("other" if name == purpose else name, step)

    return tamper


@pytest.mark.parametrize(
    "tamper",
    [reset_momentum, reset_schedule, reset_ema, other_key("order"), other_key("mix"), other_key("augment")],
    ids=["optimizer", "schedule", "ema", "order key", "mixing key", "augmentation key"],
)
def test_the_resume_test_catches_what_is_lost(tmp_path, whole, tamper):
    """Compared before the folder is asked: the digest check would refuse other data."""
    assert not harness.same_bits(whole, harness.run_cut(tmp_path, harness.settings(FULL, ema=0.9), 9, tamper))


def test_the_learning_rate_of_two_parts_is_that_of_the_whole(tmp_path, whole):
    resumed = harness.run_cut(tmp_path, harness.settings(FULL, ema=0.9), 13)
    assert [row["lr"] for row in whole.run.rows()] == [row["lr"] for row in resumed.run.rows()]
    groups = [made.state.optimizer.param_groups[0]["lr"] for made in (whole, resumed)]
    assert groups[0] == groups[1]


def test_a_new_process_repeats_the_bits(tmp_path):
    code = (
        "import sys, hashlib; from pathlib import Path; from tests.engine import harness\n"
        "from mixcli.settings import SynerMix\n"
        "made = harness.run_through(Path(sys.argv[1]), harness.settings(SynerMix(), epochs=1))\n"
        "state = harness.tensors(made.content())\n"
        "print(hashlib.sha256(b''.join(v.numpy().tobytes() for v in state.values())).hexdigest())"
    )
    hashes = set()
    for part in ("a", "b"):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / part)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout.split()[-1])
    assert len(hashes) == 1


def test_twenty_seeds_give_twenty_sets_of_weights(tmp_path):
    found = {
        float(harness.training(tmp_path, harness.settings(seed=s)).state.net.head.weight.detach().sum())
        for s in range(20)
    }
    assert len(found) == 20


def test_ledger_26_a_run_leaves_every_global_generator_as_it_was_and_ignores_it(tmp_path):
    totals = []
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
        made = harness.run_through(tmp_path / str(seed), harness.settings(SynerMix(), epochs=1))
        assert random.getstate() == before[0] and (np.random.get_state()[1] == before[1]).all()
        assert torch.equal(torch.get_rng_state(), before[2])
        totals.append(made)
    assert harness.same_bits(*totals)


def test_other_data_under_the_same_name_is_refused(tmp_path):
    train = harness.settings()
    made = harness.run_through(tmp_path, train)
    other = harness.training(tmp_path / "other", train)
    other.source = type(other.source)(**{**vars(other.source), "digest": "0" * 64})
    with pytest.raises(UserError, match="pixel digest") as caught:
        other.restore(made.run.checkpoint)
    assert caught.value.exit_code == 3


def test_another_thread_count_is_one_warning(tmp_path):
    train = harness.settings(epochs=1)
    made = harness.run_through(tmp_path, train)
    other = harness.training(tmp_path / "other", train.model_copy(update={"threads": 2}))
    other.restore(made.run.checkpoint)
    assert len(other.reporter.warnings) == 1 and "--threads" in other.reporter.warnings[0]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=1))
    other = harness.training(tmp_path, harness.settings(epochs=1, seed=5))
    with pytest.raises(UserError, match="another run") as caught:
        other.restore(made.run.checkpoint)
    assert caught.value.exit_code == 2 and other.state.step == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c["net"].popitem(),
        lambda c: c["net"].update({"head.weight": torch.zeros(3, 3)}),
        lambda c: c["optimizer"].clear(),
        lambda c: c["optimizer"]["state"].clear(),
        lambda c: c["progress"].update(foreign=1),
        lambda c: c.update(ema=None),
        lambda c: c.update(step="x"),
        lambda c: c.update(data=5),
        lambda c: c.pop("machine"),
        lambda c: c.pop("best"),
        lambda c: c.pop("kind"),
    ],
    ids=["net key", "net shape", "optimizer", "momentum", "progress", "ema", "step", "data", "machine", "best", "kind"],
)
def test_g21_state_that_is_missing_or_contradicts_is_loud(tmp_path, damage):
    train = harness.settings(epochs=2, ema=0.9)
    made = harness.run_through(tmp_path, train)
    content = checkpoint.load(made.run.checkpoint)
    damage(content)
    made.run.checkpoint.write_bytes(checkpoint.serialise(content))
    with pytest.raises(UserError) as caught:
        harness.training(tmp_path, train).restore(made.run.checkpoint)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


def test_an_extended_run_goes_on_and_counts_the_whole_training(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=2))
    longer = harness.settings(epochs=3)
    run = Run(tmp_path / name(longer, "0123456789ab"))
    run.extends = made.run
    with run.open(), Stop().listening() as stop:
        result = train(longer, run, harness.Quiet(), stop, resume_from=made.run.checkpoint,
                       begin=lambda: run.begin(options.to_toml(longer)))  # fmt: skip
    assert [row["epoch"] for row in run.rows()] == [1, 2, 3] and result["evaluations"] == 3
    assert run.rows()[:2] == made.run.rows() and run.parent == made.run.id


def test_files_of_an_epoch_lost_to_a_kill_are_written_again(tmp_path, monkeypatch):
    train = harness.settings(epochs=2, keep="every:1", val_fraction=0.2)
    made = harness.training(tmp_path, train)

    class Killed(Exception): ...

    def killed(run, content):
        raise Killed

    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(Killed):
        made.go()
    made.run.close()
    monkeypatch.undo()
    again = harness.run_through(tmp_path, train)
    assert len(list(again.run.epochs.iterdir())) == 2 and again.run.best.exists()


@pytest.mark.parametrize("changes", [{"augment": "randaugment", "crop": "resized"}, {"augment": "trivialaugment"}])
def test_random_operations_and_windows_resume(tmp_path, changes):
    train = harness.settings(SynerMix(intra_view="augmented"), epochs=2, **changes)
    one = harness.run_through(tmp_path / "one", train)
    assert harness.same_bits(one, harness.run_cut(tmp_path / "two", train, 9))
