"""Every command that the README shows is one that the tool understands, and every file that it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mixcli.cli import main
from mixcli.settings import METHODS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("mixcli ")
]


def test_there_are_exactly_two_set_up_commands():
    assert len(re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)) == 2


@pytest.mark.parametrize("words", [c for c in COMMANDS if c[0] in ("train", "list", "show")], ids=" ".join)
def test_a_command_of_the_readme_is_understood(words, monkeypatch, tmp_path, capsys):
    """As a dry run; CIFAR-100 is not there, which is told as missing data and nothing else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    planned = [*words, "--dry-run", "--no-measure"] if words[0] == "train" else words
    needs_cifar = "cifar100" in " ".join(words)
    assert main(planned) == (3 if needs_cifar and "--help" not in words else 0)
    if needs_cifar:
        assert "not found" in capsys.readouterr().err


def test_every_method_stands_in_the_readmes_table_and_every_path_is_there():
    assert all(f"`{name}`" in README for name in METHODS)
    for path in re.findall(r"`((?:tests|examples|mixcli)/[\w./-]+\.(?:py|toml))`", README):
        assert (ROOT / path).exists(), path
