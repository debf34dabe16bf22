"""Somebody's own code: loaded by path.py:Name or out of a package, part of a run's identity, its mistakes told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mixcli import options, own_code, settings, toml
from mixcli.cli import main
from mixcli.errors import UserError
from mixcli.mix import Context, implementation
from mixcli.report.progress import Reporter
from mixcli.runs import Run
from mixcli.sampling import Random
from mixcli.studies import comparison, ray_workers

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_mix.py"
QUICK = ["--epochs", "1", "--epoch-steps", "2"]
BUILDER = "def build(channels, classes):\n    return channels * classes\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory outside the repository with somebody's mixing in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_mix.py").write_text(EXAMPLE.read_text())
    yield tmp_path
    own_code.loaded.clear()  # other tests look at every option there is
    settings.own_candidates.clear()


def run(capsys, *argv: str) -> tuple[int, dict]:
    code = main([*argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def refused(capsys, *argv: str) -> str:
    """The one line of a command that is refused with exit code 2."""
    assert main(list(argv)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told.strip()


def train(capsys, *argv: str) -> dict:
    code, document = run(capsys, "train", *QUICK, *argv)
    assert code == 0, document["error"]
    return document["result"]


# ------------------------------------------------------------------------------------------------------------ loading


def test_anything_of_a_file_is_loaded_with_the_digest_of_its_content(here):
    (here / "net.py").write_text(BUILDER)
    own = own_code.load("./net.py:build", "--net")
    assert own.value(3, 10) == 30 and own.reference == f"net.py:build@{own.digest}"
    assert own_code.load(own.reference, "--net").value is own.value
    (here / "net.py").write_text(BUILDER + "\n")
    assert own_code.load("net.py:build", "--net").digest != own.digest
    with pytest.raises(UserError, match="net.py has changed; got digest .*, expected digest") as error:
        own_code.load(own.reference, "--net")
    assert error.value.exit_code == 2


def test_a_file_is_executed_once_and_prints_to_stderr(here, capsys):
    (here / "net.py").write_text("print('hello')\n" + BUILDER)
    one, two = (own_code.load("net.py:build", "--net") for _ in range(2))
    assert one.value is two.value and capsys.readouterr() == ("", "hello\n")


def test_two_files_of_one_name_are_two_modules(here):
    for folder, text in (("a", "X = 1\n"), ("b", "X = 2\n"), ("c", "X = 2\n")):
        (here / folder).mkdir()
        (here / folder / "net.py").write_text(text)
    modules = {own_code.load(f"{folder}/net.py:X", "--net").module for folder in "abc"}
    assert len(modules) == 3 and own_code.load("b/net.py:X", "--net").value == 2


FAILING = {
    "x = 1\nundefined\n": "line 2 fails: NameError: name 'undefined' is not defined",
    "def f(:\n": "line 1 fails: SyntaxError: invalid syntax",
    "import no_such_module_at_all\n": "line 1 fails: ModuleNotFoundError: No module named 'no_such_module_at_all'",
    "\n\nimport sys\nsys.exit(0)\n": "line 4 fails: SystemExit: 0",
    "def f():\n    raise ValueError('first\\nsecond')\nf()\n": "line 2 fails: ValueError: first",
    "import json\njson.loads('{')\n": "line 2 fails: JSONDecodeError: Expecting property name",
    "x = '\0'\n": "fails: SyntaxError: source code string cannot contain null bytes",
}


@pytest.mark.parametrize("text", FAILING)
def test_a_file_that_fails_is_told_in_one_line_with_its_line(here, capsys, text):
    (here / "bad.py").write_text(text)
    line = refused(capsys, "train", "--method", "bad.py:Mine")
    assert line.startswith("mixcli train: error: --method: bad.py ") and FAILING[text] in line
    assert line.endswith("Type --debug for the trace")
    assert main(["train", "--method", "bad.py:Mine", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


CLASS = "from mixcli.settings import Mixing, Method, CutMix\nclass Mine(Mixing):\n    '''Mine.'''\n"
DRAW = "def draw(settings, context, random): ...\n"
REFUSED = {
    ("my_mix.py:Strips", ""): "no Strips in my_mix.py. Did you mean Stripes?",
    ("my_mix.py", ""): "not a name in a file; got my_mix.py, expected path.py:Name",
    ("my_mix.py:", ""): "not a name in a file; got my_mix.py:, expected path.py:Name",
    ("gone.py:Mine", ""): "no such file; got gone.py. Relative paths begin at the working directory, ",
    (".:Mine", ""): "unknown; got .:Mine",
    (
        "x.py:Mine",
        "Mine = 3\n",
    ): "x.py:Mine is no method; got int, expected a class derived from mixcli.settings.Mixing",
    ("x.py:Mine", "class Mine: ...\n"): "x.py:Mine is no method; got a class, expected a class derived",
    ("x.py:CutMix", CLASS + DRAW): "x.py:CutMix is imported there, not defined. Derive a class from it",
    ("x.py:Mine", CLASS): "x.py lacks draw(). A mixing is its class, and draw beside",
    ("x.py:Mine", CLASS.replace("(Mixing)", "(Method)") + DRAW): "x.py lacks needs(), plan(), loss()",
    ("x.py:Mine", CLASS + "    name = 'cutmix'\n" + DRAW): "x.py:Mine is named cutmix, as a built-in is",
    ("x.py:Mine", CLASS + "    epochs: int = 3\n" + DRAW): "Mine.epochs is a setting of training already",
    ("x.py:Mine", CLASS + "    k: int\n" + DRAW): "Mine.k has no default",
    ("x.py:Mine", CLASS + "    k: int | str = 1\n" + DRAW): "Mine.k is no option: its type is none of int, float",
    ("x.py:Mine", CLASS + "    k: list[int] = []\n" + DRAW): "Mine.k is no option: its type is none of int, float",
}


@pytest.mark.parametrize(("named", "text"), REFUSED)
def test_what_is_no_method_is_refused_in_one_line(here, capsys, named, text):
    (here / "x.py").write_text(text)
    line = refused(capsys, "train", "--method", named)
    assert line.startswith("mixcli train: error: --method: ") and REFUSED[named, text] in line


def test_an_own_validator_of_either_kind_is_told_in_one_line(here, capsys):
    check = "    from pydantic import model_validator\n    k: int = 1\n    @model_validator(mode='after')\n"
    body = "    def even(self):\n        if self.k % 2: raise {}\n        return self\n"
    (here / "x.py").write_text(CLASS + check + body.format("ValueError('k is odd')") + DRAW)
    assert "error: Mine: Value error, k is odd" in refused(capsys, "train", "--method", "x.py:Mine", "--k", "3")
    error = "__import__('mixcli.errors').errors.UserError('config', 'k', 'is odd', got=self.k)"
    (here / "x.py").write_text(CLASS + check + body.format(error) + DRAW)
    assert "error: --k: is odd; got 3" in refused(capsys, "train", "--method", "x.py:Mine", "--k", "3")


# ------------------------------------------------------------------------------------------------- options, everywhere


def test_its_options_are_in_the_help_and_in_toml_and_in_the_environment_and_in_labels(here, capsys, monkeypatch):
    assert main(["train", "--method", "my_mix.py:Stripes", "--help"]) == 0
    told = capsys.readouterr().out
    assert "Method Stripes" in told and "--stripes" in told and "which way they run" in told
    (here / "cfg.toml").write_text('method = "my_mix.py:Stripes"\nstripes = 3\n')
    assert train(capsys, "--config", "cfg.toml")["method"] == "Stripes(stripes=3)"
    assert train(capsys, "--config", "cfg.toml", "--along", "rows")["method"] == "Stripes(stripes=3, along=rows)"
    monkeypatch.setenv("MIXCLI_METHOD", "my_mix.py:Stripes")
    monkeypatch.setenv("MIXCLI_STRIPES", "5")
    assert train(capsys)["method"] == "Stripes(stripes=5)"
    assert train(capsys, "--stripes", "6")["method"] == "Stripes(stripes=6)"
    assert "--stripes: out of range; got 0, expected integer 1 … 16" in refused(capsys, "train", "--stripes", "0")


@pytest.mark.parametrize("outer", ["synermix", "regmixup", "manifold"])
def test_it_mixes_inside_a_method(here, capsys, outer):
    result = train(capsys, "--method", outer, "--inter", "my_mix.py:Stripes", "--inter-stripes", "3")
    assert result["method"] == f"{outer}(inter=Stripes(stripes=3))"


def test_a_class_derived_from_a_built_in_may_change_nothing_but_defaults(here, capsys):
    (here / "x.py").write_text(
        "from mixcli.settings import CutMix\nclass Small(CutMix):\n    '''Small boxes.'''\n    alpha: float = 5.0\n"
    )
    assert train(capsys, "--method", "x.py:Small")["method"] == "Small"
    assert options.METHODS["cutmix"].reference == ""


def test_a_method_of_ones_own_is_a_class_and_three_functions(here, capsys):
    (here / "x.py").write_text(
        "from mixcli.methods.supervised import Plan, score\nfrom mixcli.mix import Losses, Needs\n"
        "from mixcli.settings import Method\n"
        "class Halved(Method):\n    '''Half of the loss.'''\n    part: float = 0.5\n"
        "def needs(settings): return Needs()\n"
        "def plan(settings, context, random): return Plan()\n"
        "def loss(settings, net, batch, plan):\n"
        "    found = score(net(batch.images), batch, plan)\n"
        "    total = found.total * settings.part\n"
        "    return Losses(total, {**found.parts, 'loss': total.detach()})\n"
    )
    assert train(capsys, "--method", "x.py:Halved", "--part", "0.25")["method"] == "Halved(part=0.25)"


# ----------------------------------------------------------------------------------------------------- identity, runs


def identity(capsys, *argv: str) -> str:
    return run(capsys, "train", "--method", *argv, "--dry-run")[1]["result"]["id"]


def test_the_content_of_the_file_belongs_to_the_runs_identity_and_its_place_does_not(here, capsys):
    one = identity(capsys, "my_mix.py:Stripes")
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "renamed.py").write_text(EXAMPLE.read_text())
    for place in ("./my_mix.py", str(here / "my_mix.py"), "elsewhere/renamed.py"):
        assert identity(capsys, f"{place}:Stripes") == one
    (here / "my_mix.py").write_text(EXAMPLE.read_text() + "# touched\n")
    assert identity(capsys, "my_mix.py:Stripes") != one


def test_settings_read_back_equal_and_name_the_digest(here, capsys):
    folder = train(capsys, "--method", "synermix", "--inter", "my_mix.py:Stripes", "--inter-stripes", "3")["checkpoint"]
    folder = Path(folder).parent
    text = (folder / "settings.toml").read_text()
    assert f'method = "my_mix.py:Stripes@{own_code.load("my_mix.py:Stripes", "").digest}"' in text
    table = toml.read(folder / "settings.toml")
    assert options.flat(options.from_flat(table)) == table
    assert main(["train", "--config", f"{folder}/settings.toml", "--quiet"]) == 0  # finished already


def stopped(capsys, monkeypatch, *argv: str) -> str:
    """The folder of a run that was terminated after its first epoch of two."""
    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "epoch", lambda self, row: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["train", "--epochs", "2", "--epoch-steps", "2", *argv]) == 143
    capsys.readouterr()
    [folder] = Path("runs").glob("digits-*")
    return str(folder)


def test_a_run_goes_on_with_the_file_it_was_started_with(here, capsys, monkeypatch):
    folder = stopped(capsys, monkeypatch, "--method", "my_mix.py:Stripes")
    whole = run(capsys, "train", "--epochs", "2", "--epoch-steps", "2", "--method", "my_mix.py:Stripes",
                "--runs", "other")[1]["result"]  # fmt: skip
    gone_on = run(capsys, "train", "--resume-from", folder)[1]["result"]
    assert gone_on["checkpoint"] == f"{folder}/run.ckpt" and gone_on["nll"] == whole["nll"]


def test_a_run_whose_file_changed_or_went_is_refused_and_says_what_differs(here, capsys, monkeypatch):
    folder = stopped(capsys, monkeypatch, "--method", "my_mix.py:Stripes")
    field, digest = f"mixcli train: error: {folder}/settings.toml field method: ", own_code.load(
        "my_mix.py:Stripes", "").digest  # fmt: skip
    (here / "my_mix.py").write_text(EXAMPLE.read_text() + "# touched\n")
    other = own_code.load("my_mix.py:Stripes", "").digest
    line = refused(capsys, "train", "--resume-from", folder)
    assert line.startswith(f"{field}my_mix.py has changed; got digest {other}, expected digest {digest}. ")
    (here / "my_mix.py").write_text(EXAMPLE.read_text())
    (here / "my_mix.py").rename(here / "moved.py")
    line = refused(capsys, "train", "--resume-from", folder)
    assert line.startswith(f"{field}no such file; got my_mix.py, expected the file of digest {digest}")
    assert run(capsys, "train", "--resume-from", folder, "--method", "moved.py:Stripes")[0] == 0


@pytest.mark.parametrize("words", [["regmixup", "--inter"], ["synermix", "--inter", "manifold", "--inter-inter"]])
def test_a_mixing_inside_a_method_that_moved_is_found_again_too(here, capsys, monkeypatch, words):
    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "epoch", lambda self, row: os.kill(os.getpid(), signal.SIGTERM))
        inside = ["--method", *words, "my_mix.py:Stripes"]
        assert main(["train", "--epochs", "2", "--epoch-steps", "2", *inside]) == 143
    [folder] = map(str, Path("runs").glob(f"*{words[0]}*"))
    (here / "my_mix.py").rename(here / "moved.py")
    capsys.readouterr()
    assert "no such file; got my_mix.py" in refused(capsys, "train", "--resume-from", folder)
    assert run(capsys, "train", "--resume-from", folder, words[-1], "moved.py:Stripes")[0] == 0


def test_completing_a_line_that_names_a_broken_file_tells_no_mistake(here):
    (here / "bad.py").write_text("undefined\n")
    code = "import mixcli.cli; mixcli.cli.run()"
    words = {"COMP_WORDS": "mixcli train --method bad.py:X --conf", "COMP_CWORD": "4"}
    environment = {**os.environ, "_MIXCLI_COMPLETE": "complete_bash", **words}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "--config" in done.stdout and not done.stderr


def test_resuming_by_its_settings_says_that_the_file_is_another(here, capsys, monkeypatch):
    folder = stopped(capsys, monkeypatch, "--method", "my_mix.py:Stripes")
    old = own_code.load("my_mix.py:Stripes", "").digest
    (here / "my_mix.py").write_text(EXAMPLE.read_text() + "# touched\n")
    new = own_code.load("my_mix.py:Stripes", "").digest
    line = refused(capsys, "train", "--epochs", "2", "--epoch-steps", "2", "--method", "my_mix.py:Stripes", "--resume")
    assert f"method: run has Stripes@{old}; got Stripes@{new}" in line and folder in line


def test_a_finished_run_is_read_without_its_code(here, capsys):
    for stripes in ("2", "3"):
        train(capsys, "--method", "my_mix.py:Stripes", "--stripes", stripes)
    (here / "my_mix.py").write_text("raise SystemExit('executed')\n")
    folders = sorted(map(str, Path("runs").glob("*Stripes*")))
    assert main(["compare", *folders]) == 0
    told = capsys.readouterr().out
    assert "Stripes, stripes=2" in told and "Stripes, stripes=3" in told
    assert main(["probe", "calibration", folders[0], "--quiet"]) == 0


def test_a_study_has_arms_and_axes_of_it_and_its_workers_find_it(here, capsys):
    asked = ["ablate", "--axis", "stripes=2,5", "--seeds", "2", "--method", "my_mix.py:Stripes", *QUICK]
    assert main([*asked, "--devices", "cpu:1", "--quiet"]) == 0
    assert "stripes=5" in capsys.readouterr().out
    assert len(list(Path("runs").glob("*Stripes*/result.json"))) == 4
    (here / "study.toml").write_text(
        'seeds = [0, 1]\nbaseline = "none"\n[base]\nepochs = 1\nepoch_steps = 2\n[arms.none]\n'
        '[arms.mine]\nmethod = "my_mix.py:Stripes"\nstripes = 5\n'
        '[arms.inside]\nmethod = "regmixup"\n[arms.inside.inter]\nmethod = "my_mix.py:Stripes"\n'
    )
    assert main(["ablate", "study.toml", "--devices", "cpu:1", "--quiet"]) == 0
    assert "mine" in capsys.readouterr().out


def test_an_arm_of_a_study_is_called_by_its_class_and_by_its_file_where_two_are_alike(here, capsys):
    (here / "deep").mkdir()
    for place in ("other.py", "deep/my_mix.py"):
        (here / place).write_text(EXAMPLE.read_text() + f"# {place}\n")
    (here / "my_net.py").write_text(PLAIN)

    def arms(*words: str) -> list[str]:
        code, document = run(capsys, "ablate", *words, "--seeds", "1", "--dry-run")
        assert code == 0, document["error"]
        return [arm["arm"] for arm in document["result"]["arms"]]

    mine, other, deep = (f"{here}/{place}:Stripes" for place in ("my_mix.py", "other.py", "deep/my_mix.py"))
    assert arms("--axis", "stripes=2,5", "--method", mine) == ["Stripes stripes=2", "Stripes stripes=5"]
    assert arms("--axis", f"method=cutmix,{mine}") == ["none method=cutmix", "none method=Stripes"]
    pair = arms("--axis", f"method={mine},{other}", "--baseline", "method=other.py:Stripes")
    assert pair == ["none method=my_mix.py:Stripes", "none method=other.py:Stripes"]
    same = arms("--axis", f"method={mine},{other},{deep}")
    assert same == [f"none method={mine}", "none method=other.py:Stripes", f"none method={deep}"]
    nets = arms("--axis", f"net=small,{here}/my_net.py:build")
    assert nets == ["none net=small", "none net=my_net"]


def test_one_file_in_two_places_is_one_arm(here, capsys):
    (here / "there").mkdir()
    (here / "there" / "my_mix.py").write_text((here / "my_mix.py").read_text())
    (here / "my_net.py").write_text(PLAIN)
    (here / "there" / "my_net.py").write_text(PLAIN)
    found = []
    for seed, place in enumerate(("", "there/")):
        words = ["--method", f"{place}my_mix.py:Stripes", "--net", f"{place}my_net.py:build", "--cut", "first,second"]
        made = train(capsys, *words, "--seed", str(seed))
        found.append(comparison.settings_of(Run(Path(made["checkpoint"]).parent)))
    assert found[0] == found[1]


STAGED = """
from mixcli.methods.manifold import loss, needs, plan
from mixcli.settings import Manifold


class Mine(Manifold):
    summary = "as it is"
"""


def test_a_method_of_ones_own_has_stages_of_its_own(here):
    (here / "mine.py").write_text(STAGED)
    made = options.gather({"method": "mine.py:Mine", "stages": "input,layer2"}, None, {}).train
    assert made.cut is None and made.method.stages == ("input", "layer2")


def test_another_node_finds_it_from_another_working_directory(here, monkeypatch):
    values = {"method": "regmixup", "inter": {"method": "my_mix.py:Stripes@0123456789ab"}, "seed": 0}
    values |= {"net": "my_net.py:build@0123456789ab"}
    anywhere = ray_workers._anywhere(values)
    assert anywhere == {**values, "inter": {"method": f"{here}/my_mix.py:Stripes@0123456789ab"},
                        "net": f"{here}/my_net.py:build@0123456789ab"}  # fmt: skip


def test_a_sheet_and_a_bench_name_it(here, capsys):
    assert run(capsys, "show", "my_mix.py:Stripes", "--stripes", "3")[1]["result"]["file"] == "show-Stripes.png"
    code, document = run(capsys, "bench", "step", "--names", "my_mix.py:Stripes")
    assert code == 0 and [row["method"] for row in document["result"]["rows"]] == ["none", "Stripes"]


# ----------------------------------------------------------------------------------------------------------- packages


def installed(folder: Path, name: str, points: str, **modules: str) -> None:
    """A package as pip leaves it, on the search path."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def packages(here, monkeypatch):
    """A folder of packages; what they offer is looked up anew."""
    folder = here / "site"
    monkeypatch.syspath_prepend(str(folder))
    own_code.offered.cache_clear()
    yield folder
    own_code.offered.cache_clear()
    for name in ("striped", "broken", "copies"):
        sys.modules.pop(name, None)


POINTS = "[mixcli.mixings]\nstripes = striped:Stripes\n"


def test_a_package_offers_a_mixing_by_name(packages, capsys):
    installed(packages, "striped", POINTS, striped=EXAMPLE.read_text())
    assert run(capsys, "list", "mixings")[1]["result"]["mixings"]["stripes"] == "from striped 1.0"
    assert "striped" not in sys.modules
    result = train(capsys, "--method", "stripes", "--stripes", "3")
    assert result["method"] == "Stripes(stripes=3)"
    text = Path(result["checkpoint"]).with_name("settings.toml").read_text()
    assert f'method = "stripes@{own_code.method("stripes", "").reference[-12:]}"' in text
    assert "--method: unknown; got stripe. Did you mean stripes?" in refused(capsys, "train", "--method", "stripe")


def test_another_version_of_a_package_is_another_run(packages, capsys):
    installed(packages, "striped", POINTS, striped=EXAMPLE.read_text())
    one = own_code.load_offered(("mixings",), "stripes", "").reference
    (packages / "striped-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: striped\nVersion: 2\n")
    own_code.offered.cache_clear()
    with pytest.raises(UserError, match="stripes of striped 2 has changed"):
        own_code.load_offered(("mixings",), one, "")


def test_two_packages_of_one_name_are_refused_where_it_is_asked_for(packages, capsys):
    installed(packages, "striped", POINTS, striped=EXAMPLE.read_text())
    installed(packages, "copies", "[mixcli.methods]\nstripes = striped:Stripes\nmixup = copies:X\n")
    line = refused(capsys, "train", "--method", "stripes")
    assert "stripes is offered more than once: by copies 1.0 and by striped 1.0. Uninstall" in line
    code, document = run(capsys, "train", *QUICK, "--method", "mixup")
    assert code == 0 and document["warnings"] == ["--method: the built-in mixup is used; copies 1.0 offers one too"]


def test_a_package_that_fails_breaks_no_list_and_is_told_where_it_is_asked_for(packages, capsys):
    points = "[mixcli.mixings]\nbroken = broken:Mine\ngone = not_there_at_all:Mine\nmixup = broken:Mine\n"
    installed(packages, "broken", points, broken="x = 1\nundefined\n")
    code, document = run(capsys, "list")
    assert code == 0 and document["result"]["mixings"]["broken"] == "from broken 1.0"
    assert document["warnings"] == [
        "gone: of broken 1.0 cannot be imported: there is no module not_there_at_all",
        "mixup: of broken 1.0 is not used: the built-in one has this name",
    ]
    line = refused(capsys, "train", "--method", "broken")
    assert "--method: broken of broken 1.0, broken.py line 2, fails: NameError: name 'undefined' is not defined" in line
    assert "gone of broken 1.0 fails: ModuleNotFoundError" in refused(capsys, "train", "--method", "gone")


def test_naming_nothing_of_ones_own_looks_for_no_package_and_a_list_imports_none(here):
    code = "import sys\nfrom mixcli.cli import main\nmain(sys.argv[1:])\nprint('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


# --------------------------------------------------------------------------------------------------------------- nets

PLAIN = (
    "from mixcli.nets.staged import StagedNet\n"
    + (EXAMPLE.parent / "my_net.py").read_text()
    + """

def broken(channels, classes):
    return Plain(channels, undefined, 4)


def none(channels, classes):
    return None


def odd(channels, classes):
    return StagedNet({"first": nn.Conv2d(channels, 4, 3), "second": nn.Conv2d(5, 4, 3)}, nn.Linear(4, classes))


def frozen(channels, classes):
    net = Plain(channels, classes, 4)
    net.first.requires_grad_(False)
    return net
"""
)
UNDEFINED = PLAIN.splitlines().index("    return Plain(channels, undefined, 4)") + 1
CUT = ["--net", "my_net.py:build", "--cut", "first,second"]


@pytest.fixture
def net(here):
    (here / "my_net.py").write_text(PLAIN)
    return here / "my_net.py"


def test_a_net_of_ones_own_is_trained_resumed_probed_and_tells_its_digest(net, capsys):
    digest = own_code.load("my_net.py:build", "--net").digest
    for method in ("synermix", "manifold"):
        made = train(capsys, *CUT, "--method", method)
        assert made["net"] == f"my_net.py:build@{digest}" and f"digits-my_net-{method}-s0" in made["checkpoint"]
    assert main(["train", "--resume-from", "latest", "--extend-to", "2", "--quiet"]) == 0
    capsys.readouterr()
    code, probed = run(capsys, "probe", "linearity", "latest", "--points", "2", "--images", "60")
    assert code == 0 and {row["site"] for row in probed["result"]["rows"]} >= {"first", "second", "pooled", "logits"}
    assert train(capsys, *CUT[:2], "--stages", "first,second")["parameters"] < train(
        capsys, *CUT, "--width", "17")["parameters"]  # fmt: skip


def test_a_net_with_frozen_weights_is_gone_on_with(net, capsys):
    train(capsys, "--net", "my_net.py:frozen", "--cut", "first,second")
    assert main(["train", "--resume-from", "latest", "--extend-to", "2", "--quiet"]) == 0


def test_a_changed_net_is_another_run_and_ends_what_rests_on_the_old_one(net, capsys):
    before = train(capsys, *CUT)["checkpoint"]
    net.write_text(PLAIN + "\n")
    assert train(capsys, *CUT)["checkpoint"] != before
    assert "my_net.py has changed" in refused(capsys, "probe", "calibration", str(Path(before).parent))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--net", "my_net.py:build"],
            "is not cut into stages. Give --cut (or --stages, where the method has none): submodules",
        ),
        (["--net", "my_net.py:biuld", "--cut", "first"], "--net: no biuld in my_net.py. Did you mean build?"),
        (["--net", "my_net.py:build", "--stages", "first,thrid"], "--stages: no such submodule; got thrid"),
        (["--net", "my_net.py:build", "--stages", "second,first"], "run in another order"),
        (
            ["--net", "my_net.py:broken", "--cut", "first"],
            f"my_net.py:broken line {UNDEFINED} fails: NameError",
        ),
        (["--net", "my_net.py:none", "--cut", "first"], "returns no net; got NoneType, expected torch.nn.Module"),
        (["--net", "my_net.py:broken", "--cut", "first", "--width", "3"], "takes none; got 3. Leave it out"),
        ([*CUT, "--pretrained"], "there are no published weights of build@"),
        (["--net", "my_net.py:odd"], "images of 8x8 pixels do not fit it (Invalid channel dimensions"),
        (["--net", "away.py:build"], "--net: no such file; got away.py"),
        (["--net", "resnet19"], "--net: unknown; got resnet19. Did you mean resnet1"),
    ],
)
def test_a_net_that_cannot_be_had_is_told_in_one_line(net, capsys, words, line):
    assert line in refused(capsys, "train", *QUICK, *words)


# -- candidates of MiAMix -----------------------------------------------------------------------------------------

CANDIDATES = ["--method", "miamix", "--methods", "mixup,my_mix.py:Stripes"]


def test_a_mixing_of_ones_own_is_a_candidate_of_miamix_and_its_digest_part_of_the_run(here, capsys):
    one = train(capsys, *CANDIDATES)
    assert one["method"] == "miamix(methods=mixup/Stripes)"
    digest = own_code.load("my_mix.py:Stripes", "").digest
    text = Path(one["checkpoint"]).with_name("settings.toml").read_text()
    assert f'methods = ["mixup", "my_mix.py:Stripes@{digest}"]' in text
    assert one["checkpoint"] != train(capsys, "--method", "miamix", "--methods", "mixup,cutmix")["checkpoint"]
    (here / "elsewhere.py").write_text(EXAMPLE.read_text())
    assert train(capsys, *CANDIDATES[:3], "mixup,elsewhere.py:Stripes")["checkpoint"] == one["checkpoint"]
    (here / "my_mix.py").write_text(EXAMPLE.read_text() + "# touched\n")
    assert train(capsys, *CANDIDATES)["checkpoint"] != one["checkpoint"]


def test_masks_of_ones_own_are_drawn_and_augmented_by_the_name_of_their_class(here):
    own = options.gather({"method": "miamix", "methods": "my_mix.py:Stripes", "layers": "1"}, None, {}).train.method
    images = Context((64, 8, 8), np.arange(64) % 10, 10)
    keep = implementation(own).plan(own, images, Random(0, "mix")).mix.keep
    assert ((keep == 0) | (keep == 1)).all() and (keep == keep[:, :, :1]).all() and (keep == 0).any()  # whole columns
    typed = {"method": "miamix", "methods": "my_mix.py:Stripes", "augmented": "Stripes", "p_smooth": "1"}
    smooth = options.gather(typed, None, {}).train.method
    keep = implementation(smooth).plan(smooth, images, Random(0, "mix")).mix.keep
    assert ((keep > 0) & (keep < 1)).any()


def test_a_run_with_such_a_candidate_goes_on_where_the_file_lies_now_and_is_read_without_it(here, capsys, monkeypatch):
    folder = stopped(capsys, monkeypatch, *CANDIDATES)
    (here / "my_mix.py").rename(here / "moved.py")
    assert "no such file; got my_mix.py" in refused(capsys, "train", "--resume-from", folder)
    code, done = run(capsys, "train", "--resume-from", folder, "--methods", "mixup,moved.py:Stripes")
    assert code == 0, done["error"]
    (here / "moved.py").unlink()
    own_code.loaded.clear()
    settings.own_candidates.clear()
    assert comparison.settings_of(Run(Path(folder)))[0] == "miamix(methods=mixup/Stripes)"
    assert main(["probe", "calibration", folder, "--quiet"]) == 0


def test_a_run_is_read_by_whatever_name_its_candidate_calls_itself(here, capsys):
    source = EXAMPLE.read_text().replace("    symmetric = False", '    name = "zebra"\n    symmetric = False')
    (here / "my_mix.py").write_text(source)
    one = train(capsys, *CANDIDATES, "--augmented", "zebra")
    assert "no such candidate; got Stripes" in refused(capsys, "train", *CANDIDATES, "--augmented", "Stripes")
    own_code.loaded.clear()
    settings.own_candidates.clear()
    run_folder = Path(one["checkpoint"]).parent
    assert comparison.settings_of(Run(run_folder))[0] == "miamix(methods=mixup/Stripes, augmented=zebra)"


BARE = "from mixcli.settings import Mixing, Method, Pairs\n\n\nclass Bare(Pairs, Mixing):\n    {}\n\n\n{}"
NOT_CANDIDATES = {
    BARE.format('"""Nothing"""', "def draw(settings, context, random): ...\n"): "bare.py:Bare cannot be a candidate: "
    "its file lacks masks(); expected masks(settings, share, size, random)",
    BARE.format("moves = True", "def draw(settings, context, random): ...\n"): "Bare moves its source and cannot be",
}


@pytest.mark.parametrize("source", NOT_CANDIDATES)
def test_what_cannot_be_a_candidate_is_told(source, here, capsys):
    (here / "bare.py").write_text(source)
    told = refused(capsys, "train", "--method", "miamix", "--methods", "mixup,bare.py:Bare")
    assert f"--methods: {NOT_CANDIDATES[source]}" in told
    told = refused(capsys, "train", "--method", "miamix", "--methods", "mixup,my_mix.py:Nosuch")
    assert "--methods: no Nosuch in my_mix.py" in told


def test_the_laws_hold_for_miamix_with_ones_own_candidate(here, capsys):
    code, document = run(capsys, "check", "miamix", *CANDIDATES[2:], "--augmented", "Stripes")
    assert code == 0, [law for law in document["result"]["laws"] if law["verdict"] == "broken"]
    assert document["result"]["method"] == "miamix(methods=mixup/Stripes, augmented=Stripes)"
