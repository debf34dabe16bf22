"""test_lazy_imports.py: what a glance at the tool costs: no torch, no numpy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROBE = """
import sys
from mixcli.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "numpy", "sklearn", "scipy", "pandas", "torchvision", "matplotlib"} & set(sys.modules)
light = {"pydantic"} & set(sys.modules)
print("\\nHEAVY", sorted(heavy), "LIGHT", sorted(light), "CODE", code)
"""


def probe(*argv: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MIXCLI_", "PYTEST_", "COV_"))}
    done = subprocess.run([sys.executable, "-c", PROBE, *argv], capture_output=True, text=True, env=env, timeout=60)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("argv", [["--help"], ["--version"], []])
def test_the_root_imports_neither_torch_nor_numpy_nor_pydantic(argv: list[str]) -> None:
    assert probe(*argv) == "HEAVY [] LIGHT [] CODE 0"


@pytest.mark.parametrize(
    "argv",
    [
        ["list"],
        ["list", "methods", "--json"],
        ["train", "--help"],
        ["bench", "--help"],
        ["data", "--help"],
        ["list", "datasets"],
        ["probe", "linearity", "--help"],
    ],
)
def test_lists_and_helps_import_neither_torch_nor_numpy(argv: list[str]) -> None:
    assert probe(*argv).startswith("HEAVY [] ")
    assert probe(*argv).endswith("CODE 0")


def test_a_mistake_is_told_before_anything_heavy_is_imported() -> None:
    assert probe("train", "--lr", "nan") == "HEAVY [] LIGHT ['pydantic'] CODE 2"


def test_shell_completion_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, atexit; atexit.register(lambda: print('\\nHEAVY', {'torch', 'numpy'} & set(sys.modules)))\n"
    code += "import mixcli.cli; mixcli.cli.run()"
    env = {**os.environ, "_MIXCLI_COMPLETE": "complete_bash", "COMP_WORDS": "mixcli train --weight", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert "--weight-decay" in done.stdout, done.stderr
    assert done.stdout.endswith("HEAVY set()\n")
