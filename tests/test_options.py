"""test_options.py: what is given, wherever it is given, becomes the settings, or one line that names the place."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mixcli import flags, options
from mixcli.errors import UserError
from mixcli.fields import Given, all_fields, holds_method, parse, rule
from mixcli.recipe import Facts, Train, complete
from mixcli.settings import METHODS, AGMix, CutMix, FMix, Manifold, Method, MiAMix, MixUp, SynerMix, SynerMixIntra

FACTS = Facts("digits", images=1437, test_images=360, classes=10, channels=1, size=(8, 8))
NESTED = [
    SynerMix(beta=0.3, inter=CutMix(alpha=0.2, box="inside")),
    SynerMix(inter=CutMix(box="minmax")),
    SynerMix(inter=Manifold(inter=CutMix(), stages=("input", "layer2"))),
    SynerMix(intra_view="augmented", intra_degree=0.5),
    SynerMixIntra(inter=MixUp(points=3, concentration="total")),
    Manifold(stages=("layer1",), alpha=0.5),
    MiAMix(method_weights=(1, 2, 3, 4, 5.5), tilt=0.5, candidates={"cutmix": CutMix(box="inside")}),
    SynerMix(inter=MiAMix(methods=("fmix", "agmix"), augmented=("fmix",), candidates={"agmix": AGMix(tilt=0.1)})),
    Manifold(inter=MiAMix(candidates={"fmix": FMix(decay=2.0), "cutmix": CutMix(box="minmax")})),
]
EVERY_METHOD: list[Method] = [cls() for cls in METHODS.values()] + NESTED


def gather(
    typed: dict[str, str | bool | None] | None = None,
    toml: str | bytes | None = None,
    env: dict[str, str] | None = None,
) -> options.Gathered:
    config = None
    if toml is not None:
        config = Path("cfg.toml")
        config.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    return options.gather(typed or {}, config, env or {})


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# -- precedence ---------------------------------------------------------------------------------------------------


def test_typed_beats_environment_beats_file_beats_default() -> None:
    toml, env, typed = "lr = 0.2\nepochs = 5\nseed = 3", {"MIXCLI_LR": "0.3", "MIXCLI_EPOCHS": "6"}, {"lr": "0.4"}
    train = gather(typed, toml, env).train
    assert (train.lr, train.epochs, train.seed, train.momentum) == (0.4, 6, 3, 0.9)


def test_stages_are_the_nets_cut_unless_the_method_has_its_own():
    typed = {"net": "torchvision:swin_t", "stages": "features.0, features.3"}
    assert gather(typed).train.cut == ("features.0", "features.3")
    assert gather(toml='method = "mixup"\nstages = ["a"]').train.cut == ("a",)
    drawn = gather({**typed, "method": "manifold", "cut": "features.1"}).train
    assert drawn.cut == ("features.1",) and drawn.method == Manifold(stages=("features.0", "features.3"))


def test_stages_of_the_net_stay_where_another_method_is_typed():
    toml = 'net = "torchvision:swin_t"\nmethod = "cutmix"\nbox = "inside"\nstages = ["features.0"]'
    assert gather({"method": "mixup"}, toml).train.cut == ("features.0",)
    drawn = gather({"method": "manifold", "stages": "features.0"}, toml).train
    assert drawn.cut == ("features.0",) and drawn.method == Manifold(stages=("features.0",))
    assert gather({"method": "mixup"}, 'method = "manifold"\nstages = ["input"]').train.cut is None


def test_flags_and_variables_are_parsed_and_toml_takes_integers_for_numbers() -> None:
    assert gather({"flip": False, "lr": "1e-3"}).train.flip is False
    assert gather(env={"MIXCLI_FLIP": "yes", "MIXCLI_LR": ""}).train == Train(flip=True)
    assert gather(toml="lr = 1").train.lr == 1.0
    assert gather({"method": "manifold", "stages": "input, layer1"}).train.method == Manifold(
        stages=("input", "layer1")
    )
    assert gather(toml='method = "manifold"\nstages = ["a"]').train.method == Manifold(stages=("a",))


def test_short_variables_name_the_folders() -> None:
    train = gather(env={"MIXCLI_DATA": "/d", "MIXCLI_RUNS": "/r"}).train
    assert (train.data_dir, train.runs) == ("/d", "/r")
    assert gather(env={"MIXCLI_DATA_DIR": "/e"}).train.data_dir == "/e"
    assert options.runs_root({"runs": None}, {"MIXCLI_RUNS": "/r"}) == "/r"
    assert options.runs_root({"runs": "t"}, {"MIXCLI_RUNS": "/r"}) == "t"
    assert options.runs_root({}, {}) == "runs"


def test_a_mixing_inside_is_typed_with_its_prefix_and_written_as_a_table() -> None:
    expected = SynerMix(beta=0.2, inter=CutMix(alpha=0.2))
    typed: dict[str, Any] = {"method": "synermix", "beta": "0.2", "inter": "cutmix", "inter_alpha": "0.2"}
    env = {f"MIXCLI_{k.upper()}": v for k, v in typed.items()}
    toml = 'method = "synermix"\nbeta = 0.2\n[inter]\nmethod = "cutmix"\nalpha = 0.2'
    assert gather(typed).train.method == gather(env=env).train.method == gather(toml=toml).train.method == expected
    assert gather({"method": "synermix", "inter_alpha": "0.2"}).train.method == SynerMix(inter=MixUp(alpha=0.2))
    assert gather({"method": "synermix", "inter": "none"}).train.method.label() == "synermix(inter=none)"


@pytest.mark.parametrize(
    ("typed", "env"), [({"method": "mixup"}, {}), ({}, {"MIXCLI_METHOD": "mixup"})], ids=["typed", "environment"]
)
def test_another_method_drops_the_keys_of_the_files_method_with_one_warning(typed: Any, env: Any) -> None:
    toml = 'lr = 0.2\nmethod = "synermix"\nbeta = 0.3\n[inter]\nmethod = "cutmix"\nalpha = 0.5'
    train, warnings, _ = gather(typed, toml, env)
    assert (train.method, train.lr) == (MixUp(), 0.2)
    assert warnings == [("cfg.toml field method", "mixup is used instead; the keys of synermix are dropped")]


def test_another_inner_mixing_drops_the_files_inner_keys() -> None:
    toml = 'method = "synermix"\nbeta = 0.3\n[inter]\nmethod = "cutmix"\nbox = "inside"'
    train, warnings, _ = gather({"inter": "mixup", "inter_points": "3"}, toml)
    assert train.method == SynerMix(beta=0.3, inter=MixUp(points=3))
    assert len(warnings) == 1


def test_the_same_method_typed_again_drops_nothing() -> None:
    train, warnings, _ = gather({"method": "synermix"}, 'method = "synermix"\nbeta = 0.3')
    assert train.method == SynerMix(beta=0.3) and not warnings


def test_a_candidate_s_options_are_typed_with_its_prefix_and_written_as_a_table() -> None:
    expected = MiAMix(methods=("mixup", "cutmix"), candidates={"cutmix": CutMix(box="inside")})
    typed = {"method": "miamix", "methods": "mixup,cutmix", "candidates_cutmix_box": "inside"}
    toml = 'method = "miamix"\nmethods = ["mixup", "cutmix"]\n[candidates.cutmix]\nbox = "inside"'
    assert gather(typed).train.method == gather(toml=toml).train.method == expected
    assert expected.label() == "miamix(methods=mixup/cutmix, candidates=cutmix(box=inside))"
    inner = 'method = "synermix"\n[inter]\nmethod = "miamix"\n[inter.candidates.fmix]\ndecay = 2.0'
    assert gather(toml=inner).train.method == SynerMix(inter=MiAMix(candidates={"fmix": FMix(decay=2.0)}))
    assert MiAMix(candidates={"cutmix": CutMix()}) == MiAMix()  # equal settings are one run


# -- mistakes -----------------------------------------------------------------------------------------------------

M = {"method": "mixup"}
SEED = "expected integer 0 … 9223372036854775807"
TYPED: list[tuple[dict[str, Any], str]] = [
    *[({"seed": v}, f"--seed: {p}; got {v}, {SEED}") for v, p in
      [("1.5", "not an integer"), ("abc", "not an integer"), ("-1", "out of range"), (str(2**70), "out of range")]],
    *[({"lr": v}, f"--lr: must be finite; got {v}, expected number > 0") for v in ("nan", "inf", "-inf", "1e400")],
    *[({"lr": v}, f"--lr: out of range; got {v}, expected number > 0") for v in ("0", "-1")],
    *[({"epochs": v}, "--epochs: out of range") for v in ("0", "-3", str(10**12))],
    ({"batch": "0"}, "--batch: out of range; got 0, expected integer ≥ 1"),
    ({"batch_size": "-4"}, "--batch-size: out of range; got -4, expected integer ≥ 1"),
    ({"batch_size": "nan"}, "--batch-size: must be finite"),
    *[({**M, "alpha": v}, f"--alpha: out of range; got {v}, expected number ≥ 0.01. For no mixing: --probability 0")
      for v in ("0", "-1", "0.009")],
    *[({**M, "alpha": v}, "--alpha: must be finite") for v in ("nan", "inf")],
    ({**M, "pairing": "permutaton"}, "--pairing: unknown; got permutaton, expected one of permutation"),
    ({"method": "mixupp"}, "--method: unknown; got mixupp. Did you mean mixup?"),
    ({"method": ""}, "--method: unknown"),
    ({**M, "beta": "0.1"}, "--beta: method mixup has no such option; it takes: per, pairing, probability, alpha"),
    ({"beta": "0.1"}, "--beta: method none has no such option; it takes: no options"),
    ({"method": "synermix", "inter_box": "inside"}, "--inter-box: mixing mixup has no such option"),
    *[({"method": "synermix", "beta": v}, f"--beta: out of range; got {v}, expected number 0 … 1")
      for v in ("-0.1", "1.1")],
    ({"label_noise": "1.2"}, "--label-noise: out of range; got 1.2, expected number 0 … 1"),
    ({"momentum": "1"}, "--momentum: out of range; got 1, expected number ≥ 0 and < 1"),
    ({"precision": "fp16"}, "--precision: unknown; got fp16, expected one of fp32, bf16"),
    ({"nesterov": True, "momentum": "0"}, "--nesterov: needs a momentum above 0"),
    ({"method": "manifold", "inter_alpha": "1"}, "--inter-alpha: belongs to a mixing that is not named"),
    ({"method": "manifold", "inter": "none"}, "--inter: cannot be used here; got none, expected one of mixup, cutmix"),
    ({"method": "manifold", "inter": "cutmix", "alpha": "1"}, "--alpha: belongs to MixUp, but the mixing is cutmix"),
    ({"method": "synermix", "inter": "synermix"}, "--inter: not usable inside SynerMix"),
    ({"method": "synermix", "inter": "cutmix", "inter_box": "minmax", "inter_alpha": "1"}, "--inter-alpha: box ="),
    ({"method": "synermix", "intra_degree": "0.5"}, "--intra-degree: has no effect on the clean view"),
    *[({"method": "miamix", "method_weights": v}, "--method-weights: ") for v in
      ("0,0,0,0,0", "-1,1,1,1,1", "nan,1,1,1,1", "1,2", "x", "", "1e308,1e308,1,1,1")],
    ({"method": "gridmix", "cells": "2,99999999999999999999"}, "--cells: out of range"),
    ({"method": "miamix", "methods": ""}, "--methods: must not be empty"),
    ({"method": "miamix", "methods": "mixup,resizemix"}, "--methods: resizemix moves its source"),
    ({"method": "miamix", "methods": "mixup,mixup"}, "--methods: names mixup twice"),
    *[({"method": "miamix", "methods": v}, f"--methods: no such candidate; got {v}, expected mixup, cutmix")
      for v in ("mixupp", "miamix", "synermix")],
    ({"method": "miamix", "p_self": "1.2"}, "--p-self: out of range; got 1.2, expected number 0 … 1"),
    ({"method": "miamix", "layers": "0"}, "--layers: out of range; got 0, expected integer 1 …"),
    ({"method": "miamix", "layers_law": "some"}, "--layers-law: unknown; got some, expected one of random, fixed"),
    ({"method": "miamix", "ratio_law": "x"}, "--ratio-law: unknown; got x, expected one of balanced, flat, simplex"),
    ({"method": "miamix", "distinct": True, "layers": "6"}, "--distinct: more layers than methods; got 6 layers"),
    *[({"method": "miamix", "tilt": v}, "--tilt: out of range") for v in ("-0.1", "1")],
    ({"method": "miamix", "alpha": "0.001"}, "--alpha: out of range"),
    ({"method": "miamix", "methods": "mixup", "tilt": "0.5"}, "--tilt: has no effect: agmix is not among the methods"),
    ({"method": "miamix", "augmented": "gmix"}, "--augmented: gmix is not among the methods"),
    ({"method": "miamix", "candidates_cutmix_box": "x"}, "--candidates-cutmix-box: unknown; got x, expected one of"),
    ({"method": "miamix", "candidates_gmix_decay": "1"}, "--candidates-gmix-decay: "),
    ({"method": "miamix", "candidates_mixup_points": "3"}, "--candidates-mixup-points: candidates mix two images"),
    ({"method": "miamix", "methods": "mixup", "candidates_fmix_decay": "2"}, "--methods: lack a candidate that has"),
    ({"method": "miamix", "candidates_agmix_tilt": "0.3", "tilt": "0.5"}, "--tilt: has no effect: agmix has a table"),
    ({"method": "cutmix", "candidates_cutmix_box": "inside"}, "--candidates-cutmix-box: method cutmix has no such"),
    ({"method": "manifold", "inter": "resizemix"}, "--inter: moves its source"),
    ({"method": "resizemix", "alpha": "1"}, "--alpha: scale_law = uniform has none. Give --scale-law beta"),
    ({"method": "smoothmix", "alpha": "1"}, "--alpha: method smoothmix has no such option"),
    ({"dataset": ""}, "--dataset: must not be empty"),
    ({"dataset": "a\0b"}, "--dataset: not text; got a\\x00b"),
    ({"dataset": "\udcff"}, "--dataset: not text"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "line"), TYPED, ids=str)
def test_a_mistake_on_the_command_line_names_its_option(typed: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        gather(typed)
    assert str(caught.value).startswith(line)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["false", "False", "0", "no"])
def test_ledger_27_a_no_in_text_is_no(text: str) -> None:
    assert gather(env={"MIXCLI_FLIP": text, "MIXCLI_NESTEROV": text}).train.nesterov is False
    assert gather({"flip": text}).train.flip is False


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"MIXCLI_LR": "nan"}, "MIXCLI_LR: must be finite; got nan, expected number > 0"),
        ({"MIXCLI_LRR": "1"}, "MIXCLI_LRR: no such setting. Did you mean MIXCLI_LR?"),
        ({"MIXCLI_FLIP": "maybe"}, "MIXCLI_FLIP: not true or false; got maybe"),
        ({"MIXCLI_METHOD": "mixup", "MIXCLI_BETA": "1"}, "MIXCLI_BETA: method mixup has no such option"),
    ],
)
def test_a_mistake_in_the_environment_names_its_variable(env: dict[str, str], line: str) -> None:
    with pytest.raises(UserError) as caught:
        gather(env=env)
    assert str(caught.value).startswith(line)
    assert caught.value.exit_code == 2


FILES: list[tuple[str | bytes, str]] = [
    (b"", "cfg.toml: empty"),
    (b" \n", "cfg.toml: empty"),
    (b"\x7fELF\x00\xff", "cfg.toml: not UTF-8 text"),
    ("é = 1".encode("latin-1"), "cfg.toml: not UTF-8 text"),
    (b"\xef\xbb\xbfseed = 1", "cfg.toml: starts with a byte-order mark"),
    ("seed = 1\nlr = = 2", "cfg.toml line 2 column 6: cannot parse as TOML"),
    ("seed: 1", "cfg.toml line 1 column 5: cannot parse as TOML"),
    ('{"seed": 1}', "cfg.toml line 1 column 1: cannot parse as TOML"),
    ("seed = 1\nseed = 2", "cfg.toml: cannot parse as TOML. Cannot overwrite a value"),
    ("[inter]\n[inter]", "cfg.toml line 2 column 7: cannot parse as TOML"),
    ('dataset = "a\n', "cfg.toml line 1 column 13: cannot parse as TOML"),
    ("seed = " + "9" * 5000, "cfg.toml: cannot parse as TOML"),
    ("epoch = 3", "cfg.toml field epoch: unknown. Did you mean epochs?"),
    ("weight-decay = 3", "cfg.toml field weight-decay: unknown. Did you mean weight_decay?"),
    ("[train]\nseed = 1", "cfg.toml table train: unknown; keys are flat, the tables are [inter] and"),
    ("[method]\nname = 1", "cfg.toml table method: unknown"),
    ('method = "synermix"\n[inter.box]\na = 1', "cfg.toml table inter.box: unknown"),
    ('epochs = "ten"', 'cfg.toml field epochs: not an integer; got str "ten", expected integer 1 … 100000'),
    ("epochs = 2.0", "cfg.toml field epochs: not an integer; got float 2.0"),
    ("epochs = true", "cfg.toml field epochs: not an integer; got bool true"),
    ('lr = "1e-3"', 'cfg.toml field lr: not a number; got str "1e-3", expected number > 0'),
    ("lr = true", "cfg.toml field lr: not a number; got bool true"),
    ("lr = 1979-05-27", "cfg.toml field lr: not a number"),
    ('flip = "yes"', "cfg.toml field flip: not true or false"),
    ("flip = 1", "cfg.toml field flip: not true or false"),
    ("dataset = 3", "cfg.toml field dataset: not text; got int 3"),
    ("method = []", "cfg.toml field method: unknown; got list []"),
    ('method = "manifold"\nstages = "a,b"', "cfg.toml field stages: does not fit"),
    ("lr = nan", "cfg.toml field lr: must be finite"),
    ("lr = -inf", "cfg.toml field lr: must be finite"),
    ("lr = 1e400", "cfg.toml field lr: must be finite"),
    (f"seed = {2**70}", "cfg.toml field seed: beyond 64 bits"),
    (f"lr = {2**70}", "cfg.toml field lr: beyond 64 bits"),
    ('method = "mixup"\nbeta = 0.1', "cfg.toml field beta: method mixup has no such option; it takes: per, pairing"),
    ("[inter]\nalpha = 1", "cfg.toml field inter.alpha: method none has no such option"),
    ('method = "synermix"\n[inter]\nalpah = 1', "cfg.toml field inter.alpah: unknown. Did you mean alpha?"),
    ('method = "miamix"\n[candidates.cutmix]\nalpha = 0.5', "cfg.toml field candidates.cutmix.alpha: is the same for"),
    ('method = "miamix"\n[candidates.resizemix]\nside = [0.1, 0.2]', "cfg.toml table candidates.resizemix: unknown"),
    ('method = "miamix"\n[candidates]\nbox = "inside"', "cfg.toml field candidates.box: not a candidate, or no option"),
    ("a = " + "[" * 100_000, "cfg.toml: too deep; expected at most 64 levels"),
    ("a = " + "{a=" * 100_000, "cfg.toml: too deep"),
    ("a = " + '["]",' * 100, "cfg.toml: too deep"),
    ("a" + ".a" * 20_000 + " = 1", "cfg.toml: too deep"),
    ("[a" + '."a"' * 100 + "]", "cfg.toml: too deep"),
    (b"#" * 2**21, "cfg.toml: too large; expected at most 1 MiB"),
]  # fmt: skip


@pytest.mark.parametrize(("toml", "line"), FILES, ids=lambda v: repr(v)[:40])
def test_a_mistake_in_the_file_names_its_place(toml: str | bytes, line: str) -> None:
    with pytest.raises(UserError) as caught:
        gather(toml=toml)
    assert str(caught.value).startswith(line)
    assert caught.value.exit_code == 2


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for path, line in [("no.toml", "no.toml: not found"), (".", ".: is a directory"), ("a\0", "a\\x00: not found")]:
        with pytest.raises(UserError) as caught:
            options.gather({}, Path(path), {})
        assert str(caught.value).startswith(line)
        assert caught.value.exit_code == 2


def test_brackets_and_dots_in_strings_and_comments_do_not_count_as_nesting() -> None:
    name = "[{." * 100
    toml = f'dataset = "{name}\\"" # {name}\nnet = \'{name}\'\ndevice = """{name}"\n""""\n'
    assert gather(toml=toml).train.dataset == name + '"'


@pytest.mark.parametrize(
    "text", ["3x", "0", "", "0s", "-1s", "1h1h", "5s3m", "1.5h", "s", "9999999999h", "3h 5m"], ids=repr
)
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--stop-after"):
        flags.duration(text, "--stop-after")


def test_durations() -> None:
    assert [flags.duration(t, "") for t in ("90s", "3h50m", "2m", "1h1m1s")] == [90, 13800, 120, 3661]


# -- there and back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", EVERY_METHOD, ids=lambda m: m.label())
def test_settings_survive_flat_and_toml(method: Method) -> None:
    train = Train(method=method, lr=1e-05, seed=2**63 - 1, flip=False, epochs=3, val_fraction=0.1)
    assert options.from_flat(options.flat(train)) == train
    assert options.from_flat(tomllib.loads(options.to_toml(train))) == train
    assert gather(toml=options.to_toml(train)).train == train
    assert type(options.from_flat(options.flat(train)).method) is type(method)


@pytest.mark.parametrize("name", ['a"b', "back\\slash", "new\nline", "tab\t", "\x7f\x01", "é 🙂", "[x]\u202e", "='#"])
def test_any_text_survives_toml(name: str) -> None:
    train = Train(dataset=name, data_dir=name)
    assert gather(toml=options.to_toml(train)).train == train


def test_plain_values_are_refused_like_a_file() -> None:
    with pytest.raises(UserError, match="settings field lr"):
        options.from_flat({"lr": "0.1"})
    with pytest.raises(UserError, match="run.ckpt field beta"):
        options.from_flat({"method": "mixup", "beta": 0.1}, "run.ckpt")


# -- identity -----------------------------------------------------------------------------------------------------

CHANGED: dict[str, Any] = {
    "seed": 1, "dataset": "cifar10", "data_dir": "x", "resize": 64, "per_class": 3, "split_seed": 1,
    "val_fraction": 0.1, "label_noise": 0.1, "noise_kind": "pair", "supplement": 2, "pad": 3, "pad_mode": "zero",
    "flip": True, "cutout": 4, "normalise": "half", "net": "small", "width": 8, "epochs": 3, "batch": 7, "lr": 0.3,
    "momentum": 0.8, "nesterov": True, "weight_decay": 0.3, "schedule": "step", "step_every": 3, "step_factor": 0.3,
    "ema": 0.9, "label_smoothing": 0.1, "precision": "bf16", "device": "cpu", "threads": 1, "compile": True,
    "deterministic": True, "cut": ("layer1", "layer2"), "pretrained": True,
    "labels": 100, "epoch_steps": 7, "schedule_epochs": 30, "zca": True, "optimizer": "adamw",
    "warmup": 0.5, "clip": 1.0, "accumulate": 2, "crop": "resized", "augment": "trivialaugment",
    "crop_scale": (0.2, 1.0), "crop_ratio": (0.5, 2.0), "crop_filter": "bicubic", "augment_count": 3,
    "augment_magnitude": 5,
    "eval_every": 2, "keep": "1", "save_every": 3, "runs": "x", "method": MixUp(),
}  # fmt: skip
OUTSIDE = {"data_dir", "device", "threads", "compile", "deterministic", "keep", "save_every", "runs"}


def test_the_identity_follows_every_hashed_setting_and_no_other() -> None:
    assert CHANGED.keys() == Train.model_fields.keys()
    beside = {k: {"crop": "resized"} for k in CHANGED if k.startswith("crop_")}
    beside |= {k: {"augment": "randaugment"} for k in CHANGED if k.startswith("augment_")}
    moved = set()
    for key, value in CHANGED.items():
        one, two = (options.identity(Train(**{**beside.get(key, {}), **more}), FACTS) for more in ({}, {key: value}))
        moved |= {key} if one != two else set()
    assert moved == Train.model_fields.keys() - OUTSIDE


def test_a_setting_that_came_later_leaves_the_runs_of_before_their_ids() -> None:
    assert options.identity(complete(Train(), FACTS), FACTS) == "4514bc5a3db8"


def test_the_identity_follows_the_methods_keys_the_data_and_the_parent() -> None:
    ids = [options.identity(Train(method=m), FACTS) for m in EVERY_METHOD if m.label() != "synermix(inter=cutmix)"]
    ids += [options.identity(Train(), Facts("other", 1437, 360, 10, 1, (8, 8)))]
    ids += [options.identity(Train(), FACTS, parent) for parent in ("0" * 12, "1" * 12)]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 12 and set(i) <= set("0123456789abcdef") for i in ids)


def test_a_default_spelled_out_is_the_same_run() -> None:
    spelled = gather({"seed": "0", "momentum": "0.9", "method": "mixup", "alpha": "1"}).train
    assert options.identity(spelled, FACTS) == options.identity(Train(method=MixUp()), FACTS)


def test_an_integer_for_a_number_is_the_same_run() -> None:
    ids = {options.identity(gather(toml=t).train, FACTS) for t in ("lr = 1", "lr = 1.0")}
    assert len(ids) == 1


# -- continuing ---------------------------------------------------------------------------------------------------


def test_a_continued_run_takes_what_is_outside_its_identity_and_refuses_the_rest() -> None:
    file = Path("settings.toml")
    file.write_text(options.to_toml(Train(method=SynerMix(inter=CutMix(box="minmax")), epochs=20)))
    train = options.continued({"threads": "3", "epochs": "20"}, file, {"MIXCLI_DEVICE": "cpu"}).train
    assert (train.threads, train.device, train.epochs) == (3, "cpu", 20)
    cases = [
        ({"epochs": "30"}, {}, "--epochs: run has 20; got 30. Use --extend-to"),
        ({"precision": "bf16"}, {}, "--precision: run has none; got bf16"),
        ({"dataset": "cifar10"}, {}, "--dataset: run has digits; got cifar10"),
        ({"method": "mixup"}, {}, "--method: run has synermix; got mixup"),
        ({"inter": "mixup"}, {}, "--inter: run has cutmix; got mixup"),
        ({}, {"MIXCLI_SEED": "3"}, "MIXCLI_SEED: run has 0; got 3"),
    ]
    for typed, env, line in cases:
        with pytest.raises(UserError) as caught:
            options.continued(typed, file, env)
        assert str(caught.value).startswith(line)
        assert caught.value.kind == "mismatch"


# -- the options themselves ---------------------------------------------------------------------------------------


def test_no_flat_key_means_two_things() -> None:
    fields = set(Train.model_fields) | {"batch_size"}
    for cls in METHODS.values():
        assert not fields & set(cls.model_fields), cls
        nested = [k for k in cls.model_fields if k.startswith("inter_") and k != "interpolations"]
        assert not nested, cls
    names = [p.name for p in flags.parameters([])]
    assert len(names) == len(set(names))


def test_every_field_says_what_it_is_and_what_it_accepts() -> None:
    for key, field in all_fields().items():
        assert field.description, key
        if holds_method(field) is None:
            assert rule(field), key
            assert field.get_default() is None or parse(field, Given(field.get_default(), "", True)) is not None


def test_the_options_of_the_chosen_method_alone_are_shown() -> None:
    def shown(argv: list[str]) -> set[str]:
        return {p.name for p in flags.parameters(argv) if not p.annotation.__metadata__[0].hidden}

    plain = set(Train.model_fields)
    assert shown([]) == plain
    assert shown(["--method", "cutmix"]) - plain == set(CutMix.model_fields)
    inner = {f"inter_{k}" for k in CutMix.model_fields}
    assert shown(["--method=synermix", "--inter", "cutmix"]) - plain == set(SynerMix.model_fields) | inner
    assert shown(["--method", "nonsense"]) == shown(["--method"]) == plain
    every = {p.name for p in flags.parameters([])}
    assert every >= set(itertools.chain(*(cls.model_fields for cls in METHODS.values()))) - {"candidates"}
    assert {"candidates_cutmix_box", "inter_candidates_fmix_decay"} <= every
    assert not {"candidates_cutmix_alpha", "candidates_resizemix_side", "candidates_miamix_layers"} & every
