"""The names of torch.autograd, which users reach as `weft.autograd`."""
from .autograd import backward_all as backward
from .autograd import grad
from .grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled

__all__ = ["backward", "enable_grad", "grad", "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"]
