"""Finds the user's source line: the innermost frame that is not weft's own."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import FrameType

from ..ir.errors import WeftError
from ..ir.graph import Location
from .state import STATE

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN_FOLDERS = tuple(
    os.path.join(_ROOT, name) + os.sep
    for name in ("ir", "passes", "backends", "runtime", "tracer", "nn", "optim", "data")
)
_ROOT_FILE = os.path.join(_ROOT, "__init__.py")
_LIBRARY = tuple(p for p in {sysconfig.get_path(n) for n in ("stdlib", "purelib", "platlib")} if p)
_own: dict[str, bool] = {}


def is_own_file(file: str) -> bool:
    """Whether `file` belongs to weft itself (tests and examples beside it do not)."""
    known = _own.get(file)
    if known is None:
        path = os.path.abspath(file)
        known = _own[file] = path.startswith(_OWN_FOLDERS) or path == _ROOT_FILE
    return known


def is_user_file(file: str) -> bool:
    """Whether a source file is the user's: neither weft nor an installed library brought it."""
    return not (is_own_file(file) or file.startswith((*_LIBRARY, "<frozen")))


def user_frame() -> FrameType | None:
    """The innermost frame outside weft."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_own_file(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def user_location() -> Location | None:
    """The user's file and line that led here."""
    frame = user_frame()
    return None if frame is None else Location(frame.f_code.co_filename, frame.f_lineno, STATE.differentiating)


def error(kind: type[WeftError], message: str) -> WeftError:
    """An error of class `kind` whose text ends with the user's file and line."""
    loc = user_location()
    return kind(f"{message} [{loc}]" if loc is not None else message)
