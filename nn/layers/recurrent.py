"""Recurrent layers: RNN, LSTM and GRU over sequences, and their cells for one step; torch's parameters, names and order
of gates.

In a compiled function the steps are one native loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from ...ir.errors import ShapeError
from ...ir.types import DType
from ...tracer.creation import empty, zeros
from ...tracer.joining import cat, flip, stack
from ...tracer.location import error
from ...tracer.loops import range as steps_of
from ...tracer.state import STATE
from ...tracer.tensor import Tensor
from .. import functional, init
from ..module import Module
from ..parameter import Parameter

State = tuple[Tensor, ...]
Step = Callable[[Tensor, Tensor, State], State]
"""(the input's share of the gates, the hidden state's share, the state) -> the next state, whose first part is the
hidden one."""


# ---- one step --------------------------------------------------------------------------------------------------------


def _tanh_step(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).tanh(),)


def _relu_step(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).relu(),)


def _lstm_step(x: Tensor, h: Tensor, state: State) -> State:
    """Gates in the order input, forget, cell, output."""
    enter, keep, value, leave = (x + h).chunk(4, -1)
    cell = keep.sigmoid() * state[1] + enter.sigmoid() * value.tanh()
    return leave.sigmoid() * cell.tanh(), cell


def _gru_step(x: Tensor, h: Tensor, state: State) -> State:
    """Gates in the order reset, update, new."""
    (x_reset, x_keep, x_new), (h_reset, h_keep, h_new) = x.chunk(3, -1), h.chunk(3, -1)
    keep = (x_keep + h_keep).sigmoid()
    new = (x_new + (x_reset + h_reset).sigmoid() * h_new).tanh()
    return (new + keep * (state[0] - new),)


_STEPS: dict[str, tuple[Step, int]] = {
    "tanh": (_tanh_step, 1),
    "relu": (_relu_step, 1),
    "lstm": (_lstm_step, 4),
    "gru": (_gru_step, 3),
}
"""Kind -> (one step, how many gates)."""


def _start(module: Module, hidden_size: int) -> None:
    """All parameters uniform between -1/sqrt(hidden size) and 1/sqrt(hidden size)."""
    bound = 1 / math.sqrt(hidden_size) if hidden_size > 0 else 0.0
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


class _Cell(Module):
    """One step of a recurrent layer."""

    kind: ClassVar[str]
    states: ClassVar[int] = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows, kinds = _STEPS[self._kind()][1] * hidden_size, {"device": device, "dtype": dtype}
        self.weight_ih = Parameter(empty(rows, input_size, **kinds))
        self.weight_hh = Parameter(empty(rows, hidden_size, **kinds))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(rows, **kinds)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new start values."""
        _start(self, self.hidden_size)

    def _kind(self) -> str:
        return type(self).kind

    def _step(self, input: Tensor, state: State | None) -> State:
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise error(
                ShapeError,
                f"{type(self).__name__}: expected input of shape [{self.input_size}] or [N, {self.input_size}], got "
                f"{list(input.shape)}",
            )
        if state is None:
            start = zeros(*input.shape[:-1], int(self.hidden_size), dtype=input.dtype)
            state = (start,) * int(type(self).states)
        x = functional.linear(input, self.weight_ih, self.bias_ih)
        return _STEPS[self._kind()][0](x, functional.linear(state[0], self.weight_hh, self.bias_hh), state)

    def extra_repr(self) -> str:
        """The sizes and options that are not the usual ones."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu for tanh."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity: {nonlinearity}")
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def _kind(self) -> str:
        return self.nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state; zeros when `hx` is left out."""
        return self._step(input, None if hx is None else (hx,))[0]


class GRUCell(_Cell):
    """One step of a gated recurrent unit."""

    kind = "gru"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next hidden state; zeros when `hx` is left out."""
        return self._step(input, None if hx is None else (hx,))[0]


class LSTMCell(_Cell):
    """One step of a long short-term memory."""

    kind = "lstm"
    states = 2

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next hidden and cell states; zeros when `hx` is left out."""
        h, c = self._step(input, hx)
        return h, c


# ---- sequences -------------------------------------------------------------------------------------------------------


class _Recurrent(Module):
    """What the layers over sequences share."""

    kind: ClassVar[str]
    states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError("dropout should be a number in range [0, 1] representing the probability")
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        rows, kinds = _STEPS[self._kind()][1] * hidden_size, {"device": device, "dtype": dtype}
        for layer, _, ending in self._runs():
            width = input_size if layer == 0 else hidden_size * (2 if bidirectional else 1)
            self.register_parameter(f"weight_ih_{ending}", Parameter(empty(rows, width, **kinds)))
            self.register_parameter(f"weight_hh_{ending}", Parameter(empty(rows, hidden_size, **kinds)))
            if bias:
                self.register_parameter(f"bias_ih_{ending}", Parameter(empty(rows, **kinds)))
                self.register_parameter(f"bias_hh_{ending}", Parameter(empty(rows, **kinds)))
        self.reset_parameters()

    def _kind(self) -> str:
        return type(self).kind

    def _runs(self) -> Iterator[tuple[int, bool, str]]:
        """(layer, whether backwards, the ending of its parameters' names) of every run over a sequence, in torch's
        order."""
        for layer in range(int(self.num_layers)):
            for backwards in (False, True) if self.bidirectional else (False,):
                yield layer, backwards, f"l{layer}" + ("_reverse" if backwards else "")

    def reset_parameters(self) -> None:
        """Draws new start values."""
        _start(self, self.hidden_size)

    def _forward(self, input: Tensor, start: State | None) -> tuple[Tensor, State]:
        """The outputs of the last layer, and the final states of all."""
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise error(
                ShapeError,
                f"{type(self).__name__}: expected an input of 2 or 3 axes whose last has size {self.input_size}, got "
                f"{list(input.shape)}",
            )
        x = input.unsqueeze(1) if input.ndim == 2 else input.transpose(0, 1) if self.batch_first else input
        states = self._start_states(input, x, start)
        ends: list[State] = []
        outputs: list[Tensor] = []
        for number, (layer, backwards, ending) in enumerate(self._runs()):
            if layer and not backwards:
                x = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
                x = functional.dropout(x, self.dropout, self.training) if self.dropout else x
            outputs = outputs if backwards else []
            result, end = self._run(x, backwards, ending, tuple(s[number] for s in states))
            outputs.append(result)
            ends.append(end)
        x = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
        finals = tuple(stack([end[k] for end in ends], 0) for k in range(len(states)))
        if input.ndim == 2:
            return x.squeeze(1), tuple(f.squeeze(1) for f in finals)
        return x.transpose(0, 1) if self.batch_first else x, finals

    def _start_states(self, input: Tensor, x: Tensor, start: State | None) -> State:
        """The initial states (layers and directions, batch, hidden size)."""
        shape = (int(self.num_layers) * (2 if self.bidirectional else 1), x.shape[1], int(self.hidden_size))
        if start is None:
            return (zeros(*shape, dtype=input.dtype),) * int(type(self).states)
        batched = tuple(s.unsqueeze(1) if input.ndim == 2 else s for s in start)
        for s in batched:
            if tuple(s.shape) != shape:
                raise error(ShapeError, f"Expected hidden size {list(shape)}, got {list(s.shape)}")
        return batched

    def _run(self, x: Tensor, backwards: bool, ending: str, state: State) -> tuple[Tensor, State]:
        """One layer in one direction: the outputs of all steps, and the last state."""
        w_ih, w_hh = getattr(self, f"weight_ih_{ending}"), getattr(self, f"weight_hh_{ending}")
        b_ih, b_hh = (getattr(self, f"bias_{k}_{ending}") if self.bias else None for k in ("ih", "hh"))
        step, _ = _STEPS[self._kind()]
        gates = functional.linear(flip(x, 0) if backwards else x, w_ih, b_ih)
        run = _run_eager if STATE.trace is None else _run_traced
        outputs, state = run(lambda now, s: step(now, functional.linear(s[0], w_hh, b_hh), s), gates, state)
        return (flip(outputs, 0) if backwards else outputs), state

    def extra_repr(self) -> str:
        """The sizes and the options that are not the usual ones."""
        usual = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        parts = [f"{k}={getattr(self, k)}" for k, v in usual.items() if getattr(self, k) != v]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *parts])


def _run_eager(step: Callable[[Tensor, State], State], gates: Tensor, state: State) -> tuple[Tensor, State]:
    outputs = []
    for now in gates.unbind(0):
        state = step(now, state)
        outputs.append(state[0])
    return stack(outputs, 0), state


def _run_traced(step: Callable[[Tensor, State], State], gates: Tensor, state: State) -> tuple[Tensor, State]:
    outputs = zeros(*gates.shape[:-1], state[0].shape[-1], dtype=gates.dtype)
    for k in steps_of(gates.shape[0]):
        state = step(gates[k], state)
        outputs[k] = state[0]
    return outputs, state


class RNN(_Recurrent):
    """Runs h' = tanh(W_ih x + b_ih + W_hh h + b_hh) (or relu) over a sequence (L, N, input_size).

    Args:
        num_layers: layers, each of which reads the outputs of the one below.
        batch_first: inputs and outputs are (N, L, ...) instead.
        dropout: the probability that an output of a layer but the last is set to zero in training.
        bidirectional: a second run from the end, whose outputs are put beside the first one's.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype)

    def _kind(self) -> str:
        return self.nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(the outputs of the last layer, the final hidden states of all layers); starts from zeros, or from `hx`."""
        output, (h,) = self._forward(input, None if hx is None else (hx,))
        return output, h


class GRU(_Recurrent):
    """Runs gated recurrent units over a sequence; the arguments are those of `RNN`."""

    kind = "gru"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(the outputs of the last layer, the final hidden states of all layers); starts from zeros, or from `hx`."""
        output, (h,) = self._forward(input, None if hx is None else (hx,))
        return output, h


class LSTM(_Recurrent):
    """Runs a long short-term memory over a sequence; the arguments are those of `RNN`."""

    kind = "lstm"
    states = 2

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(the outputs of the last layer, the final hidden and cell states); starts from zeros, or from `hx`."""
        output, (h, c) = self._forward(input, hx)
        return output, (h, c)
