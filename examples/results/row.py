"""Train one row of the results table, evaluate it, clean and corrupted, and write it down: a line of rows.csv and bits.

    python examples/results/row.py examples/openmixup-mixup-cifar100-resnet18.toml --seed 0 --stop-after 9m

Made for a machine that is there for minutes only: the run is resumed where it stands, stopped in time (exit code 75:
type the same again), and what comes back is small: a CSV line and one bit per test image, never a checkpoint. Any
further word is passed to `mixcli train` (`--epochs 2` for a trial; its row is then another run with an id of its own).
`--per-cell N` evaluates the same N images under each corruption, 0 none at all.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mixcli import cli
from mixcli.data import sources
from mixcli.data.augment import Augmentation
from mixcli.data.resident import Resident
from mixcli.engine import inference
from mixcli.files import write_atomic

COLUMNS = [
    "id", "recipe", "method", "dataset", "net", "seed", "epochs", "precision", "test_images", "accuracy",
    "accuracy_median_last10", "nll", "corruptions", "per_cell", "mean15", "mean19", "mean14", "mean_available", "noise",
    "blur", "weather", "digital", "corrupted_ece15", "corrupted_nll", "parameters", "seconds", "device", "threads",
    "torch", "mixcli", "bits",
]  # fmt: skip
LIMIT = 1_000_000  # bytes of all that a call writes


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path, help="TOML file of settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of rows.csv and bits/")
    parser.add_argument("--per-cell", type=int, help="images under each corruption; unset: all, 0: no corruptions")
    asked, further = parser.parse_known_args(argv)

    code, result = called(["train", "--config", str(asked.recipe), "--seed", str(asked.seed), *further, "--resume"])
    if code:
        return code
    row, bits = measured(result, asked.recipe.stem)
    if asked.per_cell != 0:
        code, found = corrupted(result, asked.per_cell)
        if code:
            return code
        row |= found
    written = write(asked.out, row, bits)
    scores = f"{row['accuracy']:.2%} (median of the last ten {row['accuracy_median_last10']:.2%})"
    print(f"{row['method']}: {scores}; {written}")
    return 0


def called(words: list[str]) -> tuple[int, dict[str, Any]]:
    """Runs a command of mixcli, which goes on where it was stopped; returns its exit code and what it found."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = cli.main([*words, "--json"])
    return code, json.loads(printed.getvalue())["result"]


def corrupted(result: dict[str, Any], per_cell: int | None) -> tuple[int, dict[str, Any]]:
    """The columns of a finished run under corruption; a mean that its cells do not allow is empty."""
    words = ["eval-corruptions", f"{result['dataset']}-c", str(Path(result["checkpoint"]).parent)]
    code, document = called([*words, *([] if per_cell is None else ["--per-cell", str(per_cell)])])
    if code:
        return code, {}
    (found,) = document["checkpoints"]
    means = {name: found[name] for name in ("mean15", "mean19", "mean14", "mean_available")}
    families = {name: family["mean"] for name, family in found["families"].items()}
    errors = {f"corrupted_{name}": found["calibration"][name] for name in ("ece15", "nll")}
    row = {"corruptions": found["source"], "per_cell": found["images"], **means, **families, **errors}
    return code, {name: "" if value is None else value for name, value in row.items()}


def measured(result: dict[str, Any], recipe: str) -> tuple[dict[str, Any], np.ndarray]:
    """The row of a finished run, and one bool per test image: is the most probable class its own?"""
    checkpoint = Path(result["checkpoint"])
    environment = json.loads((checkpoint.parent / "environment.json").read_text())
    settings, machine, net = inference.restore(checkpoint)
    source = sources.load(settings)
    test = Resident(source.test.images, source.test.labels, source.mean, source.std, Augmentation(), machine.device)
    with machine.session():
        correct = inference.evaluate(net, test, machine).correct.numpy()
    if correct.mean() != result["accuracy"]:
        raise SystemExit(f"{checkpoint}: scores {correct.mean():.4%} here, {result['accuracy']:.4%} in its run")
    row = {**environment, **result, "recipe": recipe, "bits": f"bits/{result['id']}.npz"}
    return {name: row.get(name, "") for name in COLUMNS}, correct


def write(out: Path, row: dict[str, Any], correct: np.ndarray) -> str:
    """Adds the row to rows.csv, in place of an older one of the same run, and its bits to bits/."""
    (out / "bits").mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    np.savez_compressed(packed, correct=np.packbits(correct), images=np.int64(len(correct)))
    table = out / "rows.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text()))) if table.exists() else []
    rows = [old for old in rows if old["id"] != row["id"]] + [{name: str(value) for name, value in row.items()}]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if len(packed.getvalue()) + len(text.getvalue()) > LIMIT:
        raise SystemExit(f"{row['id']}: more than {LIMIT} bytes, nothing written")
    write_atomic(out / row["bits"], packed.getvalue())
    write_atomic(table, text.getvalue().encode())
    return f"{table}, {out / row['bits']}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
