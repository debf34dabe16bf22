"""A comparison's files and tables: the same bytes each time, the very sentences, and nothing foreign that runs."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from rich.console import Console

from mixcli.errors import printable
from mixcli.report import plots, tables
from mixcli.studies.comparison import Plan, Score, report, write

HOSTILE = "=1+1|<b>&%$_#{}~^\\ *x*\n\x1b[31m"
REPEATED = ("runs.csv", "results.csv", "comparisons.csv", "table.md", "table.tex", "figure.png")


def study(names=("none", "mixup", "cutmix"), n=8, failed=None, order=1, seconds=1.0, **changes):
    rng = np.random.Generator(np.random.Philox(key=n))
    runs = [
        Score(arm, seed, {"test.top1": float(p), "test.nll": 1.5, "curve_area": None, "seconds": seconds,
                          "seconds_per_step": seconds / 10 * (i + 1)}, {"epochs": 30}, f"{i:06x}{seed:06x}")
        for i, arm in enumerate(names)
        for seed, p in enumerate(rng.normal(58 + i, 0.4, n))
        if seed not in (failed or {}).get(arm, {})
    ]  # fmt: skip
    plan = Plan("a study", dict.fromkeys(names, range(n)), **{"baseline": names[0], "images": 360, **changes})
    return report(plan, runs[::order], failed)


def shown(found, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(tables.comparison(found))
    return console.file.getvalue()


def one_line(text):
    return " ".join(text.split())


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_repeated_the_files_have_the_same_bytes_whatever_the_order_and_the_times(tmp_path):
    for folder, order, seconds in (("a", 1, 1.0), ("b", -1, 7.7)):
        write(study(failed={"cutmix": {3: "diverged"}}, order=order, seconds=seconds), tmp_path / folder)
    for name in REPEATED:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert (tmp_path / "a" / "cost.csv").read_bytes() != (tmp_path / "b" / "cost.csv").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([*REPEATED, "cost.csv"])


def test_times_stand_in_cost_csv_alone_with_the_multiple_of_the_baseline(tmp_path):
    write(study(), tmp_path)
    assert not any("second" in (tmp_path / name).read_text() for name in REPEATED[:5])
    assert [row["times_baseline"] for row in rows_of(tmp_path / "cost.csv")] == ["1", "2", "3"]


def test_every_run_is_a_row_and_a_failed_one_too(tmp_path):
    write(study(failed={"cutmix": {3: "diverged"}}), tmp_path)
    runs = rows_of(tmp_path / "runs.csv")
    assert len(runs) == 24 and [(r["arm"], r["seed"], r["state"]) for r in runs if r["state"] != "done"] == [
        ("cutmix", "3", "diverged")]  # fmt: skip
    results = rows_of(tmp_path / "results.csv")
    assert [(r["n"], r["planned"]) for r in results] == [("8", "8"), ("8", "8"), ("7", "8")]
    values = [float(r["test.top1"]) for r in runs if r["arm"] == "mixup"]
    assert float(results[1]["mean"]) == pytest.approx(np.mean(values), rel=1e-9)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_x11_a_name_that_could_be_a_formula_is_written_with_an_apostrophe(tmp_path, name):
    write(study(("none", name)), tmp_path)
    for file in ("runs.csv", "results.csv", "comparisons.csv", "cost.csv"):
        cells = [cell for row in csv.reader(io.StringIO((tmp_path / file).read_text())) for cell in row]
        texts = [cell for cell in cells if not re.fullmatch(r"-?[\d.]+(e[-+]\d+)?", cell)]
        assert "'" + printable(name) in texts
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in texts)


def test_numbers_keep_their_sign_and_ten_digits(tmp_path):
    found = study(("none", "mixup"), baseline=None)  # none - mixup, below 0
    write(found, tmp_path)
    written = rows_of(tmp_path / "comparisons.csv")[0]["difference"]
    assert written.startswith("-") and float(written) == pytest.approx(found.comparisons[0]["difference"], rel=1e-9)


@pytest.mark.parametrize("n", [1, 3, 5, 8])
def test_the_sentence_is_the_same_in_every_table(tmp_path, n):
    found = study(n=n, failed={"mixup": {0: "diverged"}} if n > 1 else None)
    write(found, tmp_path)
    terminal, markdown = one_line(shown(found)), (tmp_path / "table.md").read_text().replace("\\", "")
    latex = (tmp_path / "table.tex").read_text().replace("\\textless{}", "<").replace("\\", "")
    for c, row in zip(found.comparisons, rows_of(tmp_path / "comparisons.csv"), strict=True):
        line = f"{c['name']}: {c['sentence']}"
        assert line in terminal and line in markdown and line in latex and row["sentence"] == c["sentence"]
        assert all(note in terminal for note in c["notes"])


def test_the_table_on_a_terminal_fits_80_columns():
    long = "synermix(beta=0.2, inter=mixup(alpha=0.2, pairing=derangement))"
    text = shown(study(("none", "mixup", long), failed={long: {1: "diverged"}}))
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"mixup +8 +58\.\d\d ± 0\.\d\d +\+\d\.\d\d \[\d\.\d\d, \d\.\d\d\] +(< )?0\.\d{3}", text)
    assert "7 of 8" in text and "baseline" in text


def test_a_pilot_shows_no_p_but_in_comparisons_csv(tmp_path):
    found = study(n=3)
    write(found, tmp_path)
    assert not re.search(r"0\.\d{3}", shown(found)) and " p " not in shown(found).replace("Holm p", "")
    assert all(0 < float(row["p"]) < 1 for row in rows_of(tmp_path / "comparisons.csv"))


def test_comparisons_that_are_not_with_the_baseline_get_a_table_of_their_own():
    text = shown(study(family=(("cutmix", "none"), ("cutmix", "mixup"))))
    assert "planned comparisons" in text and "cutmix - mixup" in text and "exploratory, unadjusted" in text


def test_what_is_missing_unequal_or_mixed_stands_below_the_table():
    text = one_line(shown(study(failed={"cutmix": {3: "diverged"}}, unequal={"mixup": "tuned on five values"})))
    assert "cutmix: 7 of 8 runs (seed 3: diverged)" in text and "unequal: mixup: tuned on five values" in text
    assert "mixup (unequal)" in text


def test_a_hostile_name_is_text_in_every_table(tmp_path):
    found = study(("none", HOSTILE))
    write(found, tmp_path)
    assert "\x1b" not in shown(found)
    markdown = (tmp_path / "table.md").read_text().splitlines()
    rows = [line for line in markdown if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows[:4]} == {6}
    assert not re.search(r"(?<!\\)[<*]", "".join(rows).replace("\\\\", ""))
    latex = (tmp_path / "table.tex").read_text()
    row = next(line for line in latex.splitlines() if "1+1" in line and "&" in line)
    assert len(re.findall(r"(?<!\\)&", row)) == 4 and row.endswith("\\\\")
    assert "\\textbackslash{}" in row and "\\textasciitilde{}" in row and "\\%\\$\\_\\#\\{\\}" in row
    assert not re.search(r"(?<!\\)[%#_]", row.replace("\\\\", ""))


def test_latex_is_balanced_and_uses_booktabs(tmp_path):
    write(study(), tmp_path)
    text = (tmp_path / "table.tex").read_text()
    assert [text.count(word) for word in ("\\toprule", "\\midrule", "\\bottomrule")] == [2, 2, 2]
    assert text.count("\\begin{") == text.count("\\end{") and text.count("{") == text.count("}")
    assert re.search(r"58\.\d\d \$\\pm\$ 0\.\d\d", text) and re.search(r"\$\+\d\.\d\d\$ \[", text)


@pytest.mark.parametrize("n", [0, 1, 2, 8])
def test_a_figure_can_be_drawn_of_any_number_of_runs(tmp_path, n):
    found = study(n=max(n, 1))
    found = report(found.plan, [] if n == 0 else found.scores)
    plots.comparison(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_other_figures_repeat_too(tmp_path, suffix):
    for name in "ab":
        plots.comparison(study(n=3), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_dots_of_one_arm_do_not_cover_each_other():
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    row = type("Row", (), {"points": (1.0, 1.0, 1.01, 1.02, 1.5)})
    plots._runs_of_an_arm(axis, row, 0, 0.1)
    drawn = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axis.lines]
    assert all(a[1] != b[1] or abs(a[0] - b[0]) >= 0.1 for i, a in enumerate(drawn) for b in drawn[:i])


def test_limits_hold_all_runs_and_no_interval_of_two_runs_stretches_them():
    found = study(n=2)
    low, high = plots._limits(found)
    points = [point for row in found.rows for point in row.points]
    assert low < min(points) and max(points) < high and high - low < 3 * (max(points) - min(points))
