"""Modules: registration, walking, conversion, saving and loading, printing, containers."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import weft
from weft import nn


class Net(nn.Module):
    """A module with everything: parameters, a child, a buffer, plain attributes, a class default."""

    slope = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.scale = nn.Parameter(weft.ones(2))
        self.register_buffer("count", weft.zeros(()))
        self.register_buffer("scratch", weft.zeros(2), persistent=False)
        self.label = "net"

    def forward(self, x):
        return self.first(x) * self.scale * self.slope


def book_mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))


# ---- registration ----------------------------------------------------------------------------------------------------


def test_assignment_registers() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == ["scale", "first.weight", "first.bias"]
    assert [name for name, _ in net.named_buffers()] == ["count", "scratch"]
    assert [name for name, _ in net.named_modules()] == ["", "first"]
    assert [name for name, _ in net.named_children()] == ["first"]
    assert net.label == "net"
    assert net.training is True


def test_names_move_between_tables() -> None:
    net = Net()
    net.label = nn.Parameter(weft.ones(1))
    assert "label" in dict(net.named_parameters())
    net.scale = None
    assert net.scale is None
    assert "scale" not in dict(net.named_parameters())
    del net.first
    assert not hasattr(net, "first")
    net.count = weft.ones(())
    assert dict(net.named_buffers())["count"].item() == 1


def test_class_defaults_and_properties() -> None:
    class Widget(Net):
        slope = 2.0

        @property
        def double(self):
            return self.slope * 2

    a, b = Widget(), Widget()
    a.slope = 3.0
    assert (Widget.slope, a.slope, b.slope, a.double, Net.slope, Net().slope) == (2.0, 3.0, 2.0, 6.0, 0.5, 0.5)
    del a.slope
    assert a.slope == 2.0
    Widget.late = 1
    a.late = 5
    assert (Widget.late, a.late, b.late) == (1, 5, 1)


def test_a_method_can_be_replaced_on_one_module() -> None:
    net = Net()
    net.forward = lambda x: "replaced"
    assert net(weft.ones(1, 3)) == "replaced"


def test_shared_parameters_come_once() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_bad_assignments() -> None:
    net = Net()
    with pytest.raises(
        TypeError, match=r"cannot assign 'Tensor' as parameter 'scale' \(weft.nn.Parameter or None expected\)"
    ):
        net.scale = weft.ones(2)
    with pytest.raises(TypeError, match="cannot assign 'int' as child module 'first'"):
        net.first = 3
    with pytest.raises(TypeError, match="cannot assign 'str' as buffer 'count'"):
        net.count = "no"
    with pytest.raises(KeyError, match="already exists"):
        net.register_buffer("scale", weft.ones(1))
    with pytest.raises(KeyError, match="must not be empty or contain"):
        net.add_module("a.b", nn.ReLU())
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'absent'"):
        _ = net.absent
    with pytest.raises(NotImplementedError, match=r'Module \[Module\] is missing the required "forward" function'):
        nn.Module()(1)
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        nn.Sequential(3)


def test_lookups_by_dotted_name() -> None:
    net = nn.Sequential(OrderedDict(inner=Net()))
    assert net.get_submodule("inner.first") is net.inner.first
    assert net.get_submodule("") is net
    assert net.get_parameter("inner.first.weight") is net.inner.first.weight
    assert net.get_buffer("inner.count") is net.inner.count
    with pytest.raises(AttributeError, match="no attribute `outer`"):
        net.get_submodule("inner.outer")
    with pytest.raises(AttributeError, match="has no parameter `count`"):
        net.get_parameter("inner.count")


# ---- parameters ------------------------------------------------------------------------------------------------------


def test_parameter_shares_memory() -> None:
    data = weft.zeros(3)
    p = nn.Parameter(data)
    data.add_(1)
    assert isinstance(p, weft.Tensor)
    assert p.tolist() == [1, 1, 1]
    assert p.requires_grad
    assert p.is_leaf
    assert not nn.Parameter(data, requires_grad=False).requires_grad
    assert repr(p) == "Parameter containing:\ntensor([1., 1., 1.], requires_grad=True)"
    assert not isinstance(p * 2, nn.Parameter)
    with pytest.raises(TypeError, match="made from a tensor"):
        nn.Parameter([1.0])


def test_gradient_reaches_parameters_and_their_views() -> None:
    p = nn.Parameter(weft.tensor([1.0, 2.0]))
    (p[0] * 3 + p.detach()[1] * 5).backward()
    assert p.grad.tolist() == [3, 0]


# ---- changing all at once --------------------------------------------------------------------------------------------


def test_train_and_eval_reach_all() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    x = weft.ones(50)
    weft.manual_seed(0)
    assert (net(x) == 0).any().item()
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert net(x).tolist() == x.tolist()
    assert all(m.training for m in net.train().modules())


def test_conversion() -> None:
    net = Net()
    weight = net.first.weight
    net.scale.grad = weft.ones(2)
    net.register_buffer("index", weft.zeros(2, dtype=weft.int64))
    assert net.to(weft.float64) is net
    assert net.first.weight is weight
    assert {p.dtype for p in net.parameters()} == {weft.float64}
    assert (net.count.dtype, net.index.dtype, net.scale.grad.dtype) == (weft.float64, weft.int64, weft.float64)
    assert net(weft.ones(1, 3, dtype=weft.float64)).dtype is weft.float64
    assert net.float().scale.dtype is weft.float32
    assert net.double().cpu().to("cpu", weft.float32).scale.dtype is weft.float32
    with pytest.raises(TypeError, match="floating point dtypes"):
        net.to(weft.int64)


def test_zero_grad_and_freezing() -> None:
    net = book_mlp()
    net(weft.ones(2, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any().item() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net[0].requires_grad_(False)
    net(weft.ones(2, 3)).sum().backward()
    assert [p.grad is None for p in net.parameters()] == [True, True, False, False]


def test_apply_visits_children_first() -> None:
    visited: list[str] = []
    nn.Sequential(nn.Linear(1, 1), nn.ReLU()).apply(lambda m: visited.append(type(m).__name__))
    assert visited == ["Linear", "ReLU", "Sequential"]


def test_hooks() -> None:
    layer = nn.Identity()
    before = layer.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    after = layer.register_forward_hook(lambda module, args, result: result * 10)
    assert layer(weft.tensor(1.0)).item() == 20
    before.remove()
    assert layer(weft.tensor(1.0)).item() == 10
    after.remove()
    after.remove()
    assert layer(weft.tensor(1.0)).item() == 1


# ---- saving and loading ----------------------------------------------------------------------------------------------


def test_state_dict_round_trip() -> None:
    a, b = Net(), Net()
    state = a.state_dict()
    assert list(state) == ["scale", "count", "first.weight", "first.bias"]
    assert not state["scale"].requires_grad
    assert state["scale"].data_ptr() == a.scale.data_ptr()
    assert repr(b.load_state_dict(state)) == "<All keys matched successfully>"
    x = weft.ones(2, 3)
    assert b(x).tolist() == a(x).tolist()
    a.scale.detach().add_(1)
    assert b.scale.tolist() == [1, 1]


def test_load_state_dict_tells_what_does_not_fit() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(RuntimeError) as caught:
        layer.load_state_dict({"weight": weft.ones(3, 3), "x": weft.ones(1)})
    assert str(caught.value) == (
        'Error(s) in loading state_dict for Linear:\n\tMissing key(s) in state_dict: "bias". \n\t'
        'Unexpected key(s) in state_dict: "x". \n\tsize mismatch for weight: copying a param with shape '
        "weft.Size([3, 3]) from checkpoint, the shape in current model is weft.Size([2, 3])."
    )
    found = layer.load_state_dict({"bias": weft.ones(2), "x": weft.ones(1)}, strict=False)
    assert found == (["weight"], ["x"])
    assert layer.bias.tolist() == [1, 1]


def test_load_state_dict_can_assign() -> None:
    layer = nn.Linear(3, 2)
    given = {"weight": weft.ones(2, 3, dtype=weft.float64), "bias": nn.Parameter(weft.zeros(2, dtype=weft.float64))}
    layer.load_state_dict(given, assign=True)
    assert layer.weight.dtype is weft.float64
    assert layer.weight.requires_grad
    assert layer.bias is given["bias"]


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_stand_alone(copier) -> None:
    net = nn.Sequential(Net(), nn.Linear(2, 1, bias=False))
    net[0].slope = 0.25
    twin = copier(net)
    x = weft.ones(1, 3)
    assert twin(x).tolist() == net(x).tolist()
    assert twin[0].slope == 0.25
    with weft.no_grad():
        net[0].scale.add_(1)
    assert twin[0].scale.tolist() == [1, 1]
    assert [p.requires_grad for p in twin.parameters()] == [True] * 4


# ---- containers ------------------------------------------------------------------------------------------------------


def test_sequential_is_a_list() -> None:
    net = book_mlp()
    assert len(net) == 3
    assert isinstance(net[-1], nn.Linear)
    assert list(net[:2]._modules.keys()) == ["0", "1"]
    net.append(nn.Tanh()).insert(0, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Identity", "Linear", "ReLU", "Linear", "Tanh"]
    del net[0]
    assert isinstance(net.pop(), nn.Tanh)
    net[1] = nn.Sigmoid()
    assert [type(m).__name__ for m in net + nn.Sequential(nn.ReLU())] == ["Linear", "Sigmoid", "Linear", "ReLU"]
    with pytest.raises(IndexError, match="index 7 is out of range"):
        net[7]
    named = nn.Sequential(OrderedDict(hidden=nn.Linear(2, 3), out=nn.Linear(3, 1)))
    assert named.hidden is named[0]


def test_module_list_and_dict() -> None:
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    layers.extend([nn.ReLU()])
    assert len(layers) == 4
    assert layers[0] in layers
    assert len(list(layers.parameters())) == 6
    assert len(layers[1:3]) == 2
    heads = nn.ModuleDict({"a": nn.Linear(2, 1)})
    heads["b"] = nn.Linear(2, 3)
    assert list(heads) == ["a", "b"]
    assert "a" in heads
    assert [k for k, _ in heads.named_parameters()] == ["a.weight", "a.bias", "b.weight", "b.bias"]
    heads.pop("a")
    assert list(heads.keys()) == ["b"]


def test_parameter_list_and_dict() -> None:
    values = nn.ParameterList([weft.ones(2)]).append(weft.zeros(3))
    assert [tuple(p.shape) for p in values] == [(2,), (3,)]
    values[0] = weft.zeros(4)
    assert list(dict(values.named_parameters())) == ["0", "1"]
    assert isinstance(values[0], nn.Parameter)
    table = nn.ParameterDict({"w": weft.ones(2)})
    table["b"] = weft.ones(1)
    assert list(table.keys()) == ["w", "b"]
    assert table["b"].requires_grad


# ---- printing --------------------------------------------------------------------------------------------------------


def test_repr() -> None:
    net = nn.Sequential(
        nn.Linear(2, 3),
        nn.Sequential(nn.ReLU(), nn.Dropout(0.1)),
        nn.LayerNorm(3),
        nn.Embedding(3, 4, padding_idx=0),
        nn.GELU(),
        nn.Softmax(dim=1),
        nn.Flatten(),
        nn.CrossEntropyLoss(),
        nn.ModuleList([nn.ReLU(), nn.ReLU()]),
    )
    assert (
        repr(net)
        == """\
Sequential(
  (0): Linear(in_features=2, out_features=3, bias=True)
  (1): Sequential(
    (0): ReLU()
    (1): Dropout(p=0.1, inplace=False)
  )
  (2): LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)
  (3): Embedding(3, 4, padding_idx=0)
  (4): GELU(approximate='none')
  (5): Softmax(dim=1)
  (6): Flatten(start_dim=1, end_dim=-1)
  (7): CrossEntropyLoss()
  (8): ModuleList(
    (0-1): 2 x ReLU()
  )
)  # 27 parameters"""
    )
    assert repr(nn.Linear(5, 16)) == "Linear(in_features=5, out_features=16, bias=True)  # 96 parameters"
    assert repr(nn.ReLU()) == "ReLU()"
    assert (
        repr(nn.ParameterList([weft.ones(2)]))
        == "ParameterList(\n  (0): Parameter containing: [weft.float32 of size 2]\n)  # 2 parameters"
    )


def test_summary() -> None:
    net = book_mlp()
    net[0].bias.requires_grad_(False)
    assert (
        net.summary()
        == """\
Sequential: 41 parameters, 33 trainable, 164 bytes
  name      module  shape  dtype    parameters
  0.weight  Linear  8 x 3  float32          24
  0.bias    Linear  8      float32           8
  2.weight  Linear  1 x 8  float32           8
  2.bias    Linear  1      float32           1"""
    )
    assert nn.ReLU().summary() == "ReLU: 0 parameters, 0 trainable, 0 bytes"


# ---- layers ----------------------------------------------------------------------------------------------------------

LAYERS = {
    "Linear": (lambda: nn.Linear(5, 16), (50, 5), (50, 16), "AddmmBackward0"),
    "ReLU": (nn.ReLU, (3, 4), (3, 4), "ReluBackward0"),
    "LeakyReLU": (nn.LeakyReLU, (3, 4), (3, 4), "LeakyReluBackward0"),
    "ELU": (nn.ELU, (3, 4), (3, 4), "EluBackward0"),
    "SiLU": (nn.SiLU, (3, 4), (3, 4), "SiluBackward0"),
    "GELU": (lambda: nn.GELU("tanh"), (3, 4), (3, 4), "GeluBackward0"),
    "Sigmoid": (nn.Sigmoid, (3, 4), (3, 4), "SigmoidBackward0"),
    "LogSigmoid": (nn.LogSigmoid, (3, 4), (3, 4), "LogSigmoidBackward0"),
    "Tanh": (nn.Tanh, (3, 4), (3, 4), "TanhBackward0"),
    "Softplus": (nn.Softplus, (3, 4), (3, 4), "SoftplusBackward0"),
    "Hardtanh": (nn.Hardtanh, (3, 4), (3, 4), "HardtanhBackward0"),
    "ReLU6": (nn.ReLU6, (3, 4), (3, 4), "HardtanhBackward0"),
    "Softmax": (lambda: nn.Softmax(1), (3, 4), (3, 4), "SoftmaxBackward0"),
    "LogSoftmax": (lambda: nn.LogSoftmax(1), (3, 4), (3, 4), "LogSoftmaxBackward0"),
    "Dropout": (nn.Dropout, (3, 4), (3, 4), "MulBackward0"),
    "LayerNorm": (lambda: nn.LayerNorm(4), (3, 4), (3, 4), "NativeLayerNormBackward0"),
    "Flatten": (nn.Flatten, (3, 4, 5), (3, 20), "ViewBackward0"),
    "MSELoss": (lambda: with_target(nn.MSELoss()), (3, 4), (), "MseLossBackward0"),
    "L1Loss": (lambda: with_target(nn.L1Loss()), (3, 4), (), "MeanBackward0"),
    "SmoothL1Loss": (lambda: with_target(nn.SmoothL1Loss()), (3, 4), (), "SmoothL1LossBackward0"),
    "HuberLoss": (lambda: with_target(nn.HuberLoss("none")), (3, 4), (3, 4), "HuberLossBackward0"),
    "BCEWithLogitsLoss": (
        lambda: with_target(nn.BCEWithLogitsLoss(pos_weight=weft.ones(4))),
        (3, 4),
        (),
        "BinaryCrossEntropyWithLogitsBackward0",
    ),
    "BCELoss": (
        lambda: nn.Sequential(nn.Sigmoid(), with_target(nn.BCELoss())),
        (3, 4),
        (),
        "BinaryCrossEntropyBackward0",
    ),
    "CrossEntropyLoss": (
        lambda: with_target(nn.CrossEntropyLoss(weight=weft.ones(4)), classes=True),
        (3, 4),
        (),
        "NllLossBackward0",
    ),
    "NLLLoss": (lambda: with_target(nn.NLLLoss(reduction="sum"), classes=True), (3, 4), (), "NllLossBackward0"),
}


class with_target(nn.Module):
    """A loss with its target fixed, so that it can stand in the table of layers."""

    def __init__(self, loss: nn.Module, classes: bool = False) -> None:
        super().__init__()
        self.loss, self.classes = loss, classes

    def forward(self, x):
        return self.loss(x, weft.tensor([0, 1, 2]) if self.classes else weft.zeros(x.shape))


@pytest.mark.parametrize(("make", "shape", "result", "grad_fn"), list(LAYERS.values()), ids=list(LAYERS))
def test_layer(make, shape, result, grad_fn) -> None:
    weft.manual_seed(0)
    layer = make()
    x = weft.randn(*shape, requires_grad=True)
    y = layer(x)
    assert tuple(y.shape) == result
    assert y.grad_fn.name == grad_fn
    y.sum().backward()
    assert all(p.grad is not None and tuple(p.grad.shape) == tuple(p.shape) for p in (x, *layer.parameters()))
    repr(layer)


def test_embedding_layer() -> None:
    table = nn.Embedding(4, 3, padding_idx=-2)
    assert table.weight[2].tolist() == [0, 0, 0]
    table(weft.tensor([[1, 2], [1, 0]])).sum().backward()
    assert table.weight.grad.tolist() == [[1] * 3, [2] * 3, [0] * 3, [0] * 3]
    fixed = nn.Embedding.from_pretrained(weft.tensor(np.eye(2, dtype=np.float32)))
    assert not fixed.weight.requires_grad
    assert fixed(weft.tensor(1)).tolist() == [0, 1]
    with pytest.raises(ValueError, match="Padding_idx"):
        nn.Embedding(4, 3, padding_idx=4)
