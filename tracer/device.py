"""Devices: where tensors live. The CPU is the only one so far; asking for another is a clear error."""
from __future__ import annotations

from typing import Any

from ..ir.errors import DeviceError
from .location import error
from .tensor import Tensor, tensor_property

_KNOWN_TYPES = ("cpu", "cuda", "mps", "xpu", "meta")


class Device:
    """A device by type and number: `weft.device("cpu")`, `weft.device("cuda", 0)`."""

    __slots__ = ("type", "index")

    type: str
    index: int | None

    def __init__(self, type: str | Device, index: int | None = None) -> None:
        if isinstance(type, Device):
            type, index = str(type), None
        name, _, number = type.partition(":")
        if name not in _KNOWN_TYPES or (number and (index is not None or not number.isdigit())):
            raise error(DeviceError, f"Invalid device string: {type!r}; devices are named 'cpu', 'cuda', 'cuda:0'")
        self.type, self.index = name, int(number) if number else index

    def __repr__(self) -> str:
        place = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{place})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))


device = Device
CPU = Device("cpu")


def as_device(device: Any) -> Device:
    """The device that `device` (None, a string, a number of a GPU or a Device) names; DeviceError when it does not
    exist here."""
    if device is None or device == "cpu" or device is CPU:
        return CPU
    if isinstance(device, int) and not isinstance(device, bool):
        device = f"cuda:{device}"
    if not isinstance(device, (str, Device)):
        raise error(DeviceError, f"device must be a name such as 'cpu' or a weft.device, got {device!r}")
    wanted = Device(device)
    if wanted.type != "cpu" or wanted.index not in (None, 0):
        raise error(DeviceError, f"device {str(wanted)!r} does not exist here: weft was asked for a tensor on it, and "
                                 "this machine and build "
                                 "offer 'cpu' only; leave the device argument out or pass device='cpu'")
    return CPU


def _device(self: Tensor) -> Device:
    """The device that the tensor lives on."""
    return CPU


_device.__name__ = "device"
tensor_property(_device)
