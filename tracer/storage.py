"""Storage: the memory that tensors alias, with the counter that shows overwritten saved values."""
from __future__ import annotations

import weakref
from typing import Any

import numpy as np


class Storage:
    """A block of memory, shared by a tensor and its views. Compares by identity; its address never changes.

    `array` is the NumPy array that covers the whole block (None for a storage that exists only inside a trace),
    `version` counts writes.
    """

    __slots__ = ("array", "version", "_flat", "__weakref__")

    def __init__(self, array: np.ndarray | None) -> None:
        self.array = array
        self.version = 0
        self._flat: np.ndarray | None = None

    @property
    def flat(self) -> np.ndarray:
        """The block as one dense axis, in memory order."""
        if self._flat is None:
            assert self.array is not None
            array = self.array
            if not array.flags.c_contiguous:
                array = array.transpose(sorted(range(array.ndim), key=lambda i: -array.strides[i]))
            self._flat = array.reshape(-1)
        return self._flat

    @property
    def address(self) -> int:
        """The address of the first element."""
        return self.flat.__array_interface__["data"][0]


_BY_ADDRESS: weakref.WeakValueDictionary[int, Storage] = weakref.WeakValueDictionary()


def storage_of_foreign(array: np.ndarray) -> Storage:
    """The storage for memory that somebody else owns; the same one for every array over the same owner.

    The block is the owning array when that is dense and of the same dtype, and otherwise the smallest run that holds
    `array`.
    """
    owner: Any = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    if owner.dtype != array.dtype or not (owner.flags.c_contiguous or owner.flags.f_contiguous):
        owner = _covering_run(array)
    address = owner.__array_interface__["data"][0]
    known = _BY_ADDRESS.get(address)
    block = None if known is None else known.array
    if known is not None and block is not None and (block.nbytes, block.dtype) == (owner.nbytes, owner.dtype):
        return known
    storage = Storage(owner)
    if owner.size:
        _BY_ADDRESS[address] = storage
    return storage


def _covering_run(array: np.ndarray) -> np.ndarray:
    extent = sum((n - 1) * s for n, s in zip(array.shape, array.strides,
                                             strict=True)) // array.itemsize + 1 if array.size else 0
    return np.lib.stride_tricks.as_strided(array, (extent,), (array.itemsize,))


def publish(storage: Storage) -> None:
    """Lets arrays over this storage, which leave weft, find it again when they come back."""
    if storage.array is not None and storage.array.size:
        _BY_ADDRESS.setdefault(storage.address, storage)
