"""The code generator: kernel sources to machine code. `vocabulary.py` says what a kernel source may use."""
