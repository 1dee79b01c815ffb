"""Builtin functions made of our own machine code, and the functions of CPython that this code calls.

A builtin runs as one from a C extension does: with the interpreter's lock, on borrowed arguments, giving back a new
reference, or 0 with an error set.
"""

from __future__ import annotations

import ctypes
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from . import layout

_KEYWORDS = 0x80 | 0x02
"""METH_FASTCALL | METH_KEYWORDS: (self, address of the arguments, number of those without names, tuple of names or 0);
the values of those with names follow the others."""

FUNCTIONS = (
    "Py_IncRef",
    "Py_DecRef",
    "PyObject_GetAttr",
    "PyObject_SetAttr",
    "PyDict_GetItemWithError",
    "PyDict_SetItem",
    "PyObject_CallNoArgs",
    "PyObject_Vectorcall",
    "PyErr_Clear",
    "PyObject_RichCompareBool",
    "PyTuple_New",
    "PyList_New",
    "PyLong_FromLongLong",
    "PyLong_AsLongLong",
    "PyNumber_Add",
    "PyIter_Next",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyWeakref_NewRef",
    "PyDict_Next",
)
"""In the order of `layout.API`; NumPy's PyArray_Empty follows."""
_ARRAY_EMPTY = 184
"""PyArray_Empty's place in the table of NumPy's C interface, which is the same in all versions."""


def fill_in(table: np.ndarray) -> None:
    """Fills in the part of the process table that builtins need."""
    table[layout.LIST_TYPE], table[layout.DICT_TYPE], table[layout.NONE] = id(list), id(dict), id(None)
    for number, name in enumerate(FUNCTIONS):
        table[layout.API + number] = _address(getattr(ctypes.pythonapi, name))
    table[layout.NEW_ARRAY] = _array_interface()[_ARRAY_EMPTY]


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _array_interface() -> Any:
    """The table of NumPy's C interface."""
    core: Any = np._core if hasattr(np, "_core") else np.core
    capsule = core._multiarray_umath._ARRAY_API
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.argtypes, pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    return ctypes.cast(pointer(capsule, None), ctypes.POINTER(ctypes.c_size_t))


class _Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("documentation", ctypes.c_char_p),
    )


@functools.cache
def _definition(name: str, address: int) -> _Definition:
    definition = _Definition(name.encode(), address, _KEYWORDS, None)
    hold = ctypes.pythonapi.Py_IncRef
    hold.argtypes, hold.restype = [ctypes.py_object], None
    hold(definition)  # for ever: a builtin may outlive this module when the interpreter ends
    return definition


def builtin(name: str, address: int, words: np.ndarray, *kept: Any) -> Callable[..., Any]:
    """A builtin whose machine code finds the address of `words` in its `self`; it keeps `words` and `kept` alive."""
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    return make(ctypes.byref(_definition(name, address)), (words, *kept), __name__)


def slot_address(thing: Any, name: str) -> int:
    """The address of the word in which an object keeps the attribute `name` of its class's `__slots__`; 0 where this
    Python keeps it elsewhere."""
    definition = _word(id(vars(type(thing))[name]) + 40)  # PyMemberDescrObject's PyMemberDef
    address = id(thing) + _word(definition + 16)
    return address if _word(address) == id(getattr(thing, name)) else 0


def knows_objects() -> bool:
    """Whether cells and weak references keep their objects where native code looks."""
    thing: set[int] = set()
    cell, reference = types.CellType(thing), weakref.ref(thing)
    return _word(id(cell) + 16) == id(thing) and _word(id(reference) + 16) == id(thing)


def _word(address: int) -> int:
    return ctypes.c_size_t.from_address(address).value
