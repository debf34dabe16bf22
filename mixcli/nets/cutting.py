"""cutting.py: any classifier cut into a StagedNet at submodules that run one after another.

The forward is followed symbolically (torch.fx), and only the part of it that lies between the named submodules: these
and whatever holds none of them stay as they are. What stands between two names, a module or a line of code, opens the
later stage; what stands between the last one and the closing linear layer, pooling included, is the neck. The weights
are the module's own, not copies. Refused is a net that a line of values cannot cross: where a later stage needs more
than what the one before hands over, where weights are shared between stages or never used, where the code between the
names depends on train or eval mode (`F.dropout`; an `nn.Dropout` is fine), or whose result differs by a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from mixcli.errors import UserError, first_line, nearest
from mixcli.nets.staged import StagedNet

SIZES = "Name another net or a data set of larger images; --resize sets the side of image files"
WHOLE = "module."  # before the names of a module that is called from outside


def cut(
    module: nn.Module,
    stages: Mapping[str, str],
    images: Tensor,
    head: str | None = None,
    channels_last: bool = False,
) -> StagedNet:
    """The same classifier as named stages.

    stages         name -> dotted name of the submodule with which that stage ends, in the order they run
    images         (2 or more, C, H, W), on which stages and whole must give the same bits in eval mode
    head           dotted name of the closing linear layer; None: the one whose output is the module's
    channels_last  the stages hand over maps as (B, H, W, C); they are turned, (B, C, H, W) is what is seen outside
    Raises UserError for a name that is not there, or a module that cannot be cut so.
    """
    modules = dict(module.named_modules())
    for name, path in stages.items():
        if path not in modules or not path:
            raise UserError("config", "cut", "no such submodule", got=path, hint=nearest(path, filter(None, modules)))
        if name == "input":
            raise UserError("config", "cut", "is the name of the images", got=name, hint="Name a submodule inside it")
    if not stages:
        raise _refused("no stage is named")
    head = head or _closing(module, images)
    linear = modules.get(head)
    if not isinstance(linear, nn.Linear):
        raise _refused("it does not end in one linear layer")
    ends = [*stages.values(), head]
    pieces = _pieces(module, _followed(module, ends), ends)
    if channels_last:
        last = len(pieces) - 1
        pieces = [ChannelsFirst(piece, reads=k > 0, writes=k < last) for k, piece in enumerate(pieces)]
    net = StagedNet(dict(zip(stages, pieces[:-1], strict=True)), linear, pieces[-1])
    _must_be_equal(module, net, images)
    return net


def named(paths: Sequence[str]) -> dict[str, str]:
    """Stages named like the submodules with which they end, dots as underscores.

    Raises UserError for one that is named twice.
    """
    for path in paths:
        if list(paths).count(path) > 1:
            raise UserError("config", "cut", "is named twice", got=path)
    return {path.replace(".", "_"): path for path in paths}


def _closing(module: nn.Module, images: Tensor) -> str:
    """The dotted name of the linear layer whose output is the module's; "" for none."""
    outputs: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            outputs[path] = output

        return hook

    linears = [(path, m) for path, m in module.named_modules() if isinstance(m, nn.Linear)]
    handles = [linear.register_forward_hook(keep(path)) for path, linear in linears]
    try:
        result = _called(module, images)
    finally:
        for handle in handles:
            handle.remove()
    return next((path for path, output in outputs.items() if output is result), "")


def _called(module: nn.Module, images: Tensor) -> Tensor:
    """What it gives in eval mode, without gradients. Raises UserError for images that it does not take."""
    training = module.training
    try:
        with torch.no_grad():
            return module.eval()(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        shape = f"{images.shape[2]}x{images.shape[3]}"
        problem = f"images of {shape} pixels do not fit it ({first_line(error)})"
        raise UserError("config", "net", problem, hint=SIZES) from error
    finally:
        module.train(training)


class ChannelsFirst(nn.Module):
    """A piece of a net that reads or writes (B, H, W, C), seen from outside as (B, C, H, W). No number is moved."""

    def __init__(self, inner: nn.Module, reads: bool, writes: bool):
        super().__init__()
        self.inner, self.reads, self.writes = inner, reads, writes

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x.permute(0, 2, 3, 1) if self.reads else x)
        return out.permute(0, 3, 1, 2) if self.writes else out


def running(module: nn.Module, ends: Sequence[str]) -> list[str]:
    """Dotted names of the modules in the order they run, as often as they do, the insides of those in `ends` left out.

    Raises UserError for a forward that cannot be followed.
    """
    return [str(node.target) for node in _followed(module, ends).nodes if node.op == "call_module"]


class _Whole(nn.Module):
    """A module called with images alone, so that further arguments of its forward keep their defaults."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class _Follower(fx.Tracer):
    """Looks into the modules that hold a named one, and into no other."""

    def __init__(self, ends: Sequence[str]):
        super().__init__()
        inside = {path.rsplit(".", k)[0] for path in ends for k in range(1, path.count(".") + 1)}
        self.inside = {"module", *(f"{WHOLE}{path}" for path in inside)}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.inside


def _followed(module: nn.Module, ends: Sequence[str]) -> fx.Graph:
    """The forward as a graph in which the named submodules are nodes."""
    before, graphs = module.training, []
    try:
        for training in (True, False):
            graphs.append(_Follower(ends).trace(_Whole(module.train(training))))
    except Exception as error:  # tracing runs foreign code on stand-ins for tensors, and fails in as many ways
        raise _refused(f"its forward cannot be followed ({first_line(error)})") from error
    finally:
        module.train(before)
    if str(graphs[0]) != str(graphs[1]):
        raise _refused("code between the stages depends on train or eval mode")
    for node in graphs[0].nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix(WHOLE)
    return graphs[0]


def _pieces(module: nn.Module, graph: fx.Graph, ends: Sequence[str]) -> list[nn.Module]:
    """One module for each stage, and the neck."""
    nodes = [node for node in graph.nodes if node.op != "placeholder"]
    calls = [_call(nodes, path) for path in ends]
    places = [nodes.index(call) for call in calls]
    if places != sorted(places):
        order = sorted(ends[:-1], key=lambda path: nodes.index(_call(nodes, path)))
        raise UserError("config", "cut", "run in another order", got=", ".join(ends[:-1]), expected=", ".join(order))
    rest, result = nodes[places[-1] + 1 : -1], nodes[-1].args[0]
    while rest and rest[-1] is result and _is_identity(module, rest[-1]):
        result = rest.pop().args[0]
    if rest or result is not calls[-1]:
        raise _refused("it does not end in one linear layer")
    entered = calls[-1].args[0]
    assert isinstance(entered, fx.Node)
    places[-1] -= 1  # the neck ends before the head
    entries = [next(node for node in graph.nodes if node.op == "placeholder"), *calls[:-1]]
    starts = [0, *(place + 1 for place in places[:-1])]
    outs = [*calls[:-1], entered]
    return [
        _piece(module, nodes[start : place + 1], entry, out, name)
        for start, place, entry, out, name in zip(starts, places, entries, outs, ends, strict=True)
    ]


def _is_identity(module: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), nn.Identity)


def _call(nodes: Sequence[fx.Node], path: str) -> fx.Node:
    found = [node for node in nodes if node.op == "call_module" and node.target == path]
    if len(found) != 1:
        how = f"runs {len(found)} times" if found else "does not run, or runs inside another that is named"
        raise UserError("config", "cut", how, got=path, expected="submodules that run once, one after another")
    return found[0]


def _piece(root: nn.Module, nodes: Sequence[fx.Node], entry: fx.Node, out: fx.Node, name: str) -> nn.Module:
    """These nodes as a module of one argument."""
    if out is entry and not nodes:
        return nn.Identity()
    if nodes == [out] and out.args == (entry,) and not out.kwargs and out.op == "call_module":
        return root.get_submodule(str(out.target))
    graph = fx.Graph()
    values = {entry: graph.placeholder("x")}
    for node in nodes:
        for needed in node.all_input_nodes:
            if needed not in values and needed.op == "get_attr":  # a weight may be read again, a value may not
                values[needed] = graph.node_copy(needed)
            elif needed not in values:
                raise _refused(f"the part that ends with {name} needs more than what the stage before hands over")
        values[node] = graph.node_copy(node, values.__getitem__)
    graph.output(values[out])
    return fx.GraphModule(root, graph)


def _must_be_equal(module: nn.Module, net: StagedNet, images: Tensor) -> None:
    """Raises UserError unless stages and whole hold the same weights and give the same bits."""
    own = sum(p.numel() for p in module.parameters())
    parts = sum(p.numel() for part in (*net.stages.values(), net.neck, net.head) for p in part.parameters())
    if own != parts:
        raise _refused(f"its stages have {parts:,} weights and the whole {own:,}, so some are shared or unused")
    whole, x = _called(module, images), images
    for name, stage in net.stages.items():
        x = _called(stage, x)
        _must_be_features(name, x, images)
    if not torch.equal(whole, _called(net, images)):
        raise _refused("its stages and the whole give different results")


def _must_be_features(name: str, x: object, images: Tensor) -> None:
    if not isinstance(x, Tensor) or x.ndim not in (2, 3, 4) or len(x) != len(images):
        raise _refused(f"what {name} hands over is not one tensor of maps, tokens or numbers for each image")
    if x.ndim == 4 and images.shape[2] == images.shape[3] and x.shape[2] != x.shape[3]:
        raise _refused(f"{name} hands over maps of {x.shape[2]}x{x.shape[3]}, no square ones: channels must come first")


def _refused(reason: str) -> UserError:
    return UserError("config", "net", f"cannot be cut into stages: {reason}")
