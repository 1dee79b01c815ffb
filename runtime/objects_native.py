"""Python objects in memory, in the low-level language: what several modules need to know of them."""

from __future__ import annotations

from . import layout as at
from .memory import call, load


def drop(process, thing):
    """Gives up a reference."""
    return call(load(process, at.PY_DROP), thing)


def items(process, sequence):
    """The address of the item pointers of a tuple or a list."""
    return sequence + 24 if load(sequence, 1) == load(process, at.TUPLE_TYPE) else load(sequence, 3)


def digits_of(process, thing):
    """How many digits of 30 bits a Python int has."""
    tag = load(thing, 2)
    if load(process, at.INT_LAYOUT) == at.INT_SIGNED_SIZE:
        return tag if tag >= 0 else -tag
    return tag >> 3


def is_negative(process, thing):
    """Whether a Python int is less than 0."""
    tag = load(thing, 2)
    return tag < 0 if load(process, at.INT_LAYOUT) == at.INT_SIGNED_SIZE else tag & 3 == 2
