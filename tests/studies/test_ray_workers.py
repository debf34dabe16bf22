"""The Ray engine: on a cluster of two nodes, one of them killed in the middle; and without Ray, one line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixcli.cli import main
from tests.studies import study

LONG = study.TINY.replace("epochs = 2", "epochs = 60").replace("seeds = [0, 1]", "seeds = [0, 1, 2]") + study.ARMS


def ablate(folder: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "mixcli.cli", "ablate", "small.toml", "--set", f"base.runs={folder}", "--studies",
            f"{folder}-tables", "--quiet", *words]  # fmt: skip


def tables(folder: str) -> dict[str, bytes]:
    return {name: (Path(f"{folder}-tables") / "small" / name).read_bytes() for name in study.TABLES}


@pytest.mark.stress
def test_a_killed_node_costs_no_cell_and_changes_no_byte_of_the_tables(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    study.write(LONG)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    driver = subprocess.Popen(ablate("shared", "--engine", "ray", "--address", cluster.address))
    try:
        while len(list(Path("shared").glob("*/run.ckpt"))) < 2:  # both nodes are at work
            assert driver.poll() is None
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        assert driver.wait(600) == 0
    finally:
        driver.kill()
        cluster.shutdown()
    assert len(list(Path("shared").glob("*/result.json"))) == 6
    subprocess.run(ablate("alone", "--devices", "cpu:1"), check=True)
    assert tables("shared") == tables("alone")


@pytest.mark.stress
def test_a_cluster_without_room_for_a_run_is_refused(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    study.write()
    assert main(["ablate", "small.toml", "--engine", "ray", "--gpus-per-run", "1"]) == 1
    assert "--engine ray: the cluster has no room for a run" in capsys.readouterr().err
    assert not list(Path("runs").glob("*/settings.toml")) and not list(Path("runs").glob(".sh*"))


def test_without_ray_its_engine_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    study.write()
    assert main(["ablate", "small.toml", "--engine", "ray"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) >= 1 and "--engine: Ray is not installed; got ray. pip install 'mixcli[ray]'" in err[-1]
