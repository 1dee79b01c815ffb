"""The code generator: LLVM text to machine code. `vocabulary.py` lists the words that kernels are made of."""
