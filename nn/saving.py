"""Saving the state of a module into a flat dictionary, and loading it back with torch's messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..ir.errors import WeftError
from ..tracer.grad_mode import no_grad
from ..tracer.tensor import Tensor

if TYPE_CHECKING:
    from .module import Module


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it could not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def entries(module: Module, prefix: str = "") -> list[tuple[str, Module, str, Tensor]]:
    """(key, owner, table, tensor) of every parameter and persistent buffer; shared ones come once per name."""
    found: list[tuple[str, Module, str, Tensor]] = []
    for path, owner in module.named_modules(prefix=prefix.rstrip("."), remove_duplicate=False):
        for table in ("_parameters", "_buffers"):
            for name, tensor in owner.__dict__[table].items():
                if tensor is not None and name not in owner._transient:
                    found.append((f"{path}.{name}" if path else name, owner, table, tensor))
    return found


def state_dict(
    self: Module, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
) -> dict[str, Any]:
    """Dotted names -> tensors over the memory of the parameters and persistent buffers, detached unless `keep_vars`."""
    state = OrderedDict() if destination is None else destination
    for key, _, _, tensor in entries(self, prefix):
        state[key] = tensor if keep_vars else tensor.detach()
    return state


def load_state_dict(
    self: Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
) -> IncompatibleKeys:
    """Copies the tensors of `state_dict` into the parameters and buffers of the same names.

    Args:
        strict: whether a missing or an unexpected key is an error.
        assign: take the given tensors themselves, with their dtype, instead of copying their values.

    Raises:
        WeftError: keys do not match while `strict`, or sizes differ; nothing has then been loaded but what fits.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    own = entries(self)
    names = {key for key, *_ in own}
    missing = [key for key, *_ in own if key not in state_dict]
    unexpected = [key for key in state_dict if key not in names]
    problems: list[str] = []
    if strict and unexpected:
        problems.append("Unexpected key(s) in state_dict: {}. ".format(", ".join(f'"{k}"' for k in unexpected)))
    if strict and missing:
        problems.insert(0, "Missing key(s) in state_dict: {}. ".format(", ".join(f'"{k}"' for k in missing)))
    for key, owner, table, tensor in own:
        if key in state_dict:
            problem = _load_one(key, owner, table, tensor, state_dict[key], assign)
            problems += [problem] if problem else []
    if problems:
        raise WeftError(
            "Error(s) in loading state_dict for {}:\n\t{}".format(type(self).__name__, "\n\t".join(problems))
        )
    return IncompatibleKeys(missing, unexpected)


def _load_one(key: str, owner: Module, table: str, own: Tensor, given: Any, assign: bool) -> str | None:
    if not isinstance(given, Tensor):
        return f'While copying the parameter named "{key}", expected weft.Tensor but received {type(given)}'
    if given.shape != own.shape:
        return (
            f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, "
            f"the shape in current model is {own.shape}."
        )
    with no_grad():
        if assign:
            name = key.rpartition(".")[2]
            same_kind = table == "_buffers" or isinstance(given, type(own))
            owner.__dict__[table][name] = given if same_kind else type(own)(given, own.requires_grad)  # type: ignore[call-arg]
        else:
            own.copy_(given)
    return None
