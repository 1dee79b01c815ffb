"""Where things stand in memory: the words of a frame's header, of a program row, of a thread pool, and of the process
table.

Both sides read it: Python (assembling programs, making frames) and the native sources, for which these names are
constants. All positions count 8-byte words.
"""

from __future__ import annotations

# Frame header; a frame goes on with its slots, loop states and argument tables.
STATUS = 0  # nonzero stops the program: a kernel's site number, or one of the negative codes below
ROW = 1  # address of the row to run next, or of the row that failed
PROGRAM = 2  # address of the first row
BINDINGS = 3  # address of the table that binds call arguments, see BIND_*
PROCESS = 4  # address of the process table
NEXT = 5  # address of the next free frame, while this one is free
DEADLINE = 6  # clock at which loops return to Python; 0 is "not set yet"
PROFILE = 7  # address of (count, nanoseconds) for each row, or 0
PROFILE_ROW = 8  # the row on the clock
PROFILE_TIME = 9  # when it started
HEADER = 16  # words of the header

# Status codes of the executor itself (kernels use positive ones).
EMPTY_LOOP = -1  # a loop whose last iteration's values are results ran no iteration
BAD_ARGUMENT = -2  # an argument is neither an ndarray nor, where allowed, a Python float or int
BAD_INTEGER = -3  # a Python int does not fit int64
BAD_COUNT = -4  # the number of arguments is wrong
BAD_LAYOUT = -5  # an array is not contiguous

# What `proceed` returns.
FINISHED, PAUSED, FAILED = 0, 1, 2

# One row of a program: OP, then operands by op. W marks a frame word, P a frame word that holds a pointer.
OP, KERNEL, ARGUMENTS, A, B, C, D, E = range(8)
ROW_WORDS = 8
END = 0  # the program is over
CALL = 1  # KERNEL over [0, A) with the table at word ARGUMENTS
CALL_DYNAMIC = 2  # KERNEL over [0, *P(A))
PARALLEL = 3  # KERNEL over [0, A) in chunks of B on the pool
PARALLEL_DYNAMIC = 4  # KERNEL over [0, *P(A)) in chunks of B on the pool
COPY = 5  # C bytes from P(B) to P(A)
COPY_WORD = 6  # 8 bytes from P(B) to P(A)
COPY_HALF = 7  # 4 bytes from P(B) to P(A)
LOOP_BEGIN = 8  # loop state at W(C) from *P(A) to *P(B); no iteration: an error when E, else D bytes further
LOOP_END = 9  # next iteration of W(C): goes on D bytes further when there is one; E: the loop is not inside another
LOOP_CALL = 10  # KERNEL over [*P(A), *P(B)) in slices of time, state at W(C)
JUMP = 11  # goes on D bytes further
BRANCH = 12  # goes on D bytes further when the byte at P(A) is 0
WHILE_END = 13  # goes on D bytes further; loop state at W(C); E as for LOOP_END
COPY_BYTE = 14  # one byte from P(B) to P(A)
AIM = 16  # W(ARGUMENTS) becomes P(A) + E + C * *P(B)
LOOP_TURN = 15  # one more iteration of the loop at W(C): goes on D bytes further when it was the last

# State of a loop in the frame. The first word is the index that the body reads.
LOOP_INDEX, LOOP_STOP, LOOP_BUDGET, LOOP_SIZE, LOOP_LAST = range(5)
LOOP_WORDS = 5
SLICE_INDEX, SLICE_STOP, SLICE_OPEN, SLICE_SIZE = range(4)  # the same for LOOP_CALL

# Binding table: the number of inputs | outputs << 32, then for each argument its number of positions and (byte
# position in the frame, byte offset) pairs. A Python int among the inputs is unpacked into the frame word INTEGERS +
# its number.
BIND_COUNT, BIND_INTEGERS, BIND_FIRST = range(3)

# Process table: addresses and facts that native code needs of this process.
CLOCK, CLOCK_ID, MEMCPY, YIELD, WAIT, FUTEX = range(6)
FLOAT_TYPE, INT_TYPE, ARRAY_TYPE, TUPLE_TYPE, INT_LAYOUT, POOL = range(6, 12)
POOL_READY = 12  # nonzero: POOL is the pool that new calls use
LIST_TYPE, NONE = 13, 14
RUN = 15  # address of `entry_native.run`
DICT_TYPE = 47
BLAS = 16  # addresses of sgemm, dgemm, sgemv, dgemv from here on; 0 until BLAS is loaded
PIN_GET, PIN_SET, PIN_INSIDE, PIN_BEFORE = range(20, 24)  # see blas.Pin; the addresses are 0 where BLAS has no threads
API = 24  # addresses of CPython's functions from here on, in the order of builtins.FUNCTIONS
(
    PY_HOLD,
    PY_DROP,
    PY_GET_ATTRIBUTE,
    PY_SET_ATTRIBUTE,
    PY_GET_ITEM,
    PY_SET_ITEM,
    PY_CALL,
    PY_CALL_WITH,
    PY_CLEAR_ERROR,
    PY_EQUAL,
    PY_NEW_TUPLE,
    PY_NEW_LIST,
    PY_NEW_INT,
    PY_INT_VALUE,
    PY_ADD,
    PY_ADVANCE,
    PY_UNLOCK,
    PY_LOCK,
    PY_NEW_REFERENCE,
    PY_NEXT_ENTRY,
    NEW_ARRAY,
) = range(API, API + 21)
PROCESS_WORDS = 48
# WAIT is syscall(2), and FUTEX the number of futex(2), or WAIT is usleep(3), and FUTEX is 0.
INT_SIGNED_SIZE, INT_TAGGED_SIZE = 0, 1  # INT_LAYOUT: CPython to 3.11, from 3.12

# Entry of a program: what `entry_native.enter` reads.
ENTRY_PROCESS = 0  # address of the process table
ENTRY_FREE = 1  # address of the first free frame, or 0
ENTRY_BRIEF = 2  # nonzero: the program is so short that it keeps the interpreter's lock
ENTRY_PARALLEL, ENTRY_BLAS = 3, 4  # whether it uses the thread pool, and BLAS
ENTRY_INPUTS, ENTRY_OUTPUTS = 5, 6  # how many
ENTRY_NEW_FRAME, ENTRY_GO_ON, ENTRY_ENSURE = 7, 8, 9  # Python functions
ENTRY_RESULTS = 10  # from here on, for each output: number of axes, address of the sizes, dtype object

# Thread pool, one cache line (16 words leave room for prefetching pairs) for what changes together.
TICKET = 0  # generation << 24 | next chunk to claim
JOB, JOB_KERNEL, JOB_ARGUMENTS, JOB_EXTENT, JOB_CHUNK = 16, 17, 18, 19, 20  # JOB: generation << 24 | number of chunks
DONE = 32  # chunks that are finished
SLEEPERS = 48  # workers that sleep or are about to
EPOCH = 64  # what they sleep on: changes with every wake-up
STOP = 80  # nonzero: workers leave
OWNER = 96  # nonzero: some call uses the pool
REST, REST_NEXT = 97, 98  # how many jobs the workers are spared from now on, and were spared when they last failed
WORKERS = 112  # how many workers live
POOL_WORDS = 128
CHUNK_BITS = 24
CHUNK_MASK = (1 << CHUNK_BITS) - 1
SPINS = 2000  # looks of a worker for a job before it sleeps
YIELDING = 63  # a waiting loop offers its processor to others every so many looks (a power of two, less one)

REST_MOST = 255  # jobs that workers are spared at most, before they are tried again
LOSS = 10_000  # ns that sharing a job may cost more than it saves

LOOK_SHORT, LOOK_LONG = 1_000_000, 4_000_000  # ns between two looks at the clock that are aimed at
SLICE_SHORT, SLICE_LONG = 5_000_000, 20_000_000  # ns of one slice of a loop kernel
SLICE_FIRST = 64  # iterations of the first slice
PATIENCE = 80_000_000  # ns after which the outermost loop returns to Python
MORE_PATIENCE = 80_000_000  # ns more after which any loop does
