"""Random functions of random views of a few storages, some of them captured, in several calls: compiled as eager,
also in what aliases what.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.runtime.executable import InterpretedExecutable
from weft.tracer.driver import Build

VIEWS = [
    lambda s: s,
    lambda s: s.detach(),
    lambda s: s[0:6],
    lambda s: s[2:8],
    lambda s: s[::2],
    lambda s: s[4:],
    lambda s: s[3],
    lambda s: s.view(2, 4)[0],
    lambda s: s.view(2, 4)[1, 1:],
    lambda s: s.view(2, 4)[:, 1:3],
    lambda s: s.view(4, 2).t(),
    lambda s: s.as_strided((2, 3), (1, 2), 1),
]


class Case:
    """A function as a list of steps; which views of which storages each call gets; which the function captures."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)

        def views(count, storages):
            return [(int(rng.integers(storages)), int(rng.integers(len(VIEWS)))) for _ in range(count)]

        self.steps = [
            (*map(int, rng.integers((8, 99, 99))), float(rng.integers(1, 8)) / 4) for _ in range(rng.integers(2, 7))
        ]
        width = rng.integers(1, 4)
        calls = [views(width, 2) for _ in range(3)]
        self.calls = [calls[0], calls[0], *calls] if rng.random() < 0.5 else calls
        self.captured = views(rng.integers(0, 3), 3)

    def body(self, tensors):
        results = []
        for kind, i, j, c in self.steps:
            x, y = tensors[i % len(tensors)], tensors[j % len(tensors)]
            match kind:
                case 0:
                    x.mul_(c)
                case 1:
                    x.add_(y.sum())
                case 2:
                    tensors.append(x * c)
                case 3:
                    tensors.append(x[1:] if x.ndim and len(x) > 1 else x)
                case 4:
                    tensors.append(x.t() if x.ndim == 2 else x.reshape(-1))
                case 5:
                    x.copy_(y.sum() * c * 0.1)
                case 6:
                    results.append(x)
                case 7 if x.ndim:
                    x[0] = c
        return [*results, tensors[-1]]

    def run(self, wrap):
        """All that can be seen: results, storages, and both again after writes into the results."""
        storages = [weft.tensor(np.arange(8.0) + 10 * k) for k in range(3)]
        captured = [VIEWS[v](storages[s]) for s, v in self.captured]
        function = wrap(lambda *given: self.body([*given, *captured]))
        seen = []
        for call in self.calls:
            results = function(*[VIEWS[v](storages[s]) for s, v in call])
            seen += [t.numpy().copy() for t in (*results, *storages)]
            for k, result in enumerate(results):
                result.add_(0.5 * (k + 1))
            seen += [t.numpy().copy() for t in (*results, *storages)]
            for storage in storages:
                storage.remainder_(7.0)
        return seen


def check(seed):
    case = Case(seed)
    for a, b in zip(case.run(weft.compile), case.run(lambda f: f), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_compiled_as_eager(seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Build, "run", lambda self, arrays, _=None: InterpretedExecutable(self.optimized).run(arrays))
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(500))
def test_many_more(seed):
    check(seed)
