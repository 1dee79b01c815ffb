"""Every exception and warning that weft raises on purpose, each also an instance of the class torch users catch."""


class WeftError(RuntimeError):
    """Base of weft's own errors; torch raises RuntimeError in the same places."""


class ShapeError(WeftError, ValueError):
    """Operand shapes do not fit the op."""


class DTypeError(WeftError, TypeError):
    """Operand dtypes do not fit the op, or a value cannot become a tensor."""


class IndexRangeError(WeftError, IndexError):
    """An index or a dimension number lies outside its range."""


class DeviceError(WeftError):
    """A device that does not exist here, or operands on different devices."""


class GradientError(WeftError):
    """A derivative that does not exist, or a saved value that was overwritten."""


class TraceError(WeftError):
    """Something in a traced function cannot become part of one compiled program."""


class VerifyError(WeftError):
    """A graph that breaks the IR's rules; a bug in a pass, never in user code."""


class ParseError(WeftError, ValueError):
    """Text that is not a graph in weft's notation."""


class CompileError(WeftError):
    """The code generator failed; carries the kernel's source. A bug in weft, never in user code."""


class CacheWarning(UserWarning):
    """The kernel cache could not be read or written; weft goes on without it."""
