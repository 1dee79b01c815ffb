"""What native code reads of the short way into a program (`call_native.py`): a record, with rows that say what is
checked and done. `tracer/short_call.py` writes them.

All positions count 8-byte words. R marks the number of a register: registers hold addresses of Python objects, those of
the arguments first. They begin as a copy of the record's template, which holds what is the same in every call.
"""

from __future__ import annotations

# Record.
PROCESS = 0  # address of the process table
ARGUMENTS = 1  # how many there are without names
ROWS, TEMPLATE = 2, 3  # addresses
REGISTERS = 4  # how many
NAMES = 5  # address of what rows of tensors need, see below
ENTRY = 6  # address of the program's entry (`layout.ENTRY_*`)
INPUTS = 7  # address of the registers of its inputs
EPOCHS = 8  # a list whose only element is the epoch that the record holds for
MISS = 9  # what a call gives when it does not apply
KEYWORDS = 10  # a tuple of the names of the other arguments
RECORD_WORDS = 11

# Objects that rows need.
EPOCH_CELL = 0  # address of the place that holds the epoch
NUMBERS = 1  # the iterator that numbers epochs
TENSOR_TYPE, TRUE, FALSE, NONE, ONE = range(2, 7)
ARRAY, REQUIRES_GRAD, EDGE, BASE, STORAGE_OR_NONE, STORAGE, FROZEN, VERSION, ITEM = range(7, 16)  # names of attributes
ASK_GRAD = 16  # a Python function: does this view require grad?

# A row: what to do, then operands. Checks that fail give MISS.
OP, A, B, C, D = range(5)
ROW_WORDS = 5
UNPACK = 0  # R(A) is a B of C objects, which go to registers from D on
UNPACK_DICT = 1  # R(A) is a dict with the keys in the tuple B, in this order; its values go to registers from D on
SAME = 2  # R(A) is the object B
KIND = 3  # R(A) has the type B
WHOLE = 4  # R(A) is an int of at least B, and none that needs more than 60 bits
EQUAL = 5  # R(A) has the type C and equals B
KNOWN = 6  # R(A) is the tensor that the memory at B is about: registers are as then, C bytes of rows are passed over
FITS = 7  # R(A) is a tensor as described at C: its array goes to R(B), what it shares memory through to R(D)
LEARN = 8  # the memory at A takes in R(B) and what the rows since KNOWN found, if it is open
TWIN = 9  # R(A) is the object in R(B)
ATTRIBUTE = 10  # attribute B of R(A) goes to R(C)
ENTRY_OF = 11  # what the dict A holds for B goes to R(C)
CONTENT = 12  # what the cell A holds goes to R(B)
ELEMENTS = 13  # R(A) is a list with the elements of the tuple B
HOLDS = 14  # the function A returns True
EPOCH = 15  # the epoch is the record's; it goes to R(A)
UNMOVED = 16  # the epoch is still R(A)
DISTINCT = 17  # the B registers listed at A differ from one another and from the D words at C
HOLD = 18  # R(A) is kept alive
# From here on the call is taken.
RUN = 19  # runs the program; results go to registers from A on
WRITTEN = 20  # R(A) is a tensor that was written: its version moves
TENSOR = 21  # a tensor over the array R(B), with requires_grad C and edge D where these are not 0, goes to R(A)
NUMBER = 22  # the number in the array R(B) goes to R(A)
SET_ATTRIBUTE = 23  # R(A)'s attribute B becomes R(C)
SET_ENTRY = 24  # the dict R(A) holds R(C) for B
GATHER = 25  # a tuple (or, when B, a list) of the D registers listed at C goes to R(A)
MOVE = 26  # the epoch moves; the record goes on to hold when A
RETURN = 27  # the call gives R(A)
FINISH = 28  # the call gives A(a list of the C registers listed at B, the inputs when D)

# What a tensor must be, at a row's C.
FIT_TYPE, FIT_DTYPE, FIT_AXES, FIT_GRAD = range(4)  # type, dtype, number of axes, True or False for requires_grad
FIT_LEAF, FIT_VIEW, FIT_WRITTEN, FIT_STRIDED = range(4, 8)  # it has no edge, may be a view, is written, has gaps
FIT_SIZES = 8  # sizes, then strides

# What is remembered of a tensor that may be an argument again. Nothing about it changes while the epoch stays: it is
# enough to find it again. Register numbers of tensors, their arrays and what they share memory through, then contents.
MEMORY_OPEN = 0  # nonzero: the next tensor that fits is remembered
MEMORY_REFERENCE = 1  # a list whose only element is a weak reference to the tensor, or None
MEMORY_COUNT = 2  # how many registers
MEMORY_REGISTERS = 3

MOST = 1500  # registers, and references that a call holds
