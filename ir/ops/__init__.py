"""Every primitive, one declaration each. `OPS.add` is the op `add`; importing this package declares them all."""
from .registry import OPS
from . import elementwise  # noqa: F401  (declares)

__all__ = ["OPS"]
