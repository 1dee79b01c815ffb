"""Tensors, their autograd, and the tracing of functions over them into IR graphs."""
