"""The executor, in the low-level language: binds a call's arguments to a frame and walks the rows of its program (`layout.py`)."""
from __future__ import annotations

from .layout import (A, ARGUMENTS, ARRAY_TYPE, B, BAD_ARGUMENT, BAD_INTEGER, BIND_COUNT, BIND_FIRST, BIND_INTEGERS, BINDINGS, BRANCH, C, CALL,
                     CALL_DYNAMIC, CLOCK, CLOCK_ID, COPY, COPY_BYTE, COPY_HALF, COPY_WORD, D, DEADLINE, E, EMPTY_LOOP, END, FAILED, FINISHED, FLOAT_TYPE,
                     INT_LAYOUT, INT_SIGNED_SIZE, INT_TYPE, JUMP, KERNEL, LOOK_LONG, LOOK_SHORT, LOOP_BEGIN, LOOP_BUDGET, LOOP_CALL, LOOP_END,
                     LOOP_INDEX, LOOP_LAST, LOOP_SIZE, LOOP_STOP, LOOP_TURN, MEMCPY, MORE_PATIENCE, OP, PARALLEL, PARALLEL_DYNAMIC, PATIENCE, PAUSED,
                     POOL, PROCESS, PROFILE, PROFILE_ROW, PROFILE_TIME, PROGRAM, ROW, ROW_WORDS, SLICE_INDEX, SLICE_LONG, SLICE_OPEN,
                     SLICE_SHORT, SLICE_SIZE, SLICE_STOP, STATUS, TUPLE_TYPE, WHILE_END)
from .memory import call, load, load8, load32, local, store, store8, store32
from .threads_native import run_parallel


def clock(process):
    """Nanoseconds of the monotonic clock."""
    now = local(2)
    call(load(process, CLOCK), load(process, CLOCK_ID), now)
    return load(now, 0) * 1000000000 + load(now, 1)


def begin(frame, inputs, outputs):
    """Runs a program from its start; `inputs` and `outputs` are tuples or lists of ndarrays (or, for inputs, Python floats and ints)."""
    process = load(frame, PROCESS)
    table = load(frame, BINDINGS)
    store(frame, STATUS, 0)
    store(frame, DEADLINE, 0)
    store(frame, ROW, load(frame, PROGRAM))
    store(frame, PROFILE_ROW, 0)
    count = load(table, BIND_COUNT)
    bound = bind(frame, process, table + 8 * BIND_FIRST, items(process, inputs), 0, count & 0xFFFFFFFF)
    bind(frame, process, bound, items(process, outputs), count & 0xFFFFFFFF, count >> 32)
    if load(frame, STATUS) != 0:
        return FAILED
    return proceed(frame)


def items(process, sequence):
    """The address of the item pointers of a tuple or a list."""
    return sequence + 24 if load(sequence, 1) == load(process, TUPLE_TYPE) else load(sequence, 3)


def bind(frame, process, table, objects, first, count):
    """Writes the addresses of `count` arguments wherever the program reads them; the table's next entry."""
    for k in range(count):
        thing = load(objects, k)
        kind = load(thing, 1)
        if kind == load(process, ARRAY_TYPE):
            address = load(thing, 2)
        elif kind == load(process, FLOAT_TYPE):
            address = thing + 16
        elif kind == load(process, INT_TYPE) and first == 0:
            address = frame + 8 * (load(load(frame, BINDINGS), BIND_INTEGERS) + k)
            store(address, 0, integer(frame, process, thing))
        else:
            address = 0
            store(frame, STATUS, BAD_ARGUMENT)
        end = table + 8 + 16 * load(table, 0)
        table += 8
        while table < end:
            store(frame + load(table, 0), 0, address + load(table, 1))
            table += 16
    return table


def integer(frame, process, thing):
    """The value of a Python int; the frame's status says when it is too large."""
    tag = load(thing, 2)
    if load(process, INT_LAYOUT) == INT_SIGNED_SIZE:
        digits = tag if tag >= 0 else -tag
        negative = tag < 0
    else:
        digits = tag >> 3
        negative = tag & 3 == 2
    value = 0
    for i in range(min(digits, 3)):
        value |= load32(thing + 24 + 4 * i) << (30 * i)
    if digits > 3 or (digits == 3 and load32(thing + 32) > 7):
        store(frame, STATUS, BAD_INTEGER)
    return -value if negative else value


def charge(frame, profile, row):
    """Charges the time since the last charge to the row that ran, and puts `row` on the clock."""
    now = clock(load(frame, PROCESS))
    before = load(frame, PROFILE_ROW)
    if before != 0:
        entry = profile + 16 * ((before - load(frame, PROGRAM)) // (8 * ROW_WORDS))
        store(entry, 0, load(entry, 0) + 1)
        store(entry, 1, load(entry, 1) + now - load(frame, PROFILE_TIME))
    store(frame, PROFILE_ROW, row)
    store(frame, PROFILE_TIME, now)
    return 0


def is_due(frame, patience):
    """Whether it is time to return to Python; the first question of a run starts the wait."""
    now = clock(load(frame, PROCESS))
    deadline = load(frame, DEADLINE)
    if deadline == 0:
        store(frame, DEADLINE, now + PATIENCE)
        return 0
    return now >= deadline + patience


def look(frame, state, outermost):
    """A loop's look at the clock, every so many iterations: adapts how many, and says whether to return to Python."""
    now = clock(load(frame, PROCESS))
    elapsed = now - load(state, LOOP_LAST)
    size = load(state, LOOP_SIZE)
    if elapsed < LOOK_SHORT:
        size = min(2 * size, 1 << 20)
    elif elapsed > LOOK_LONG:
        size = max(size >> 1, 1)
    store(state, LOOP_LAST, now)
    store(state, LOOP_SIZE, size)
    store(state, LOOP_BUDGET, size)
    return is_due(frame, 0 if outermost else MORE_PATIENCE)


def tick(frame, state, outermost):
    """Called after every iteration: whether the loop has to return to Python now."""
    budget = load(state, LOOP_BUDGET) - 1
    store(state, LOOP_BUDGET, budget)
    return budget <= 0 and look(frame, state, outermost)


def loop_call(frame, row):
    """Runs a loop kernel in slices of time; PAUSED between two slices, FINISHED after the last."""
    state = frame + 8 * load(row, C)
    if load(state, SLICE_OPEN) == 0:
        store(state, SLICE_INDEX, load(load(frame, load(row, A)), 0))
        store(state, SLICE_STOP, load(load(frame, load(row, B)), 0))
        store(state, SLICE_OPEN, 1)
        if load(row, E) != 0 and load(state, SLICE_INDEX) >= load(state, SLICE_STOP):
            store(frame, STATUS, EMPTY_LOOP)
    process = load(frame, PROCESS)
    stop = load(state, SLICE_STOP)
    while load(state, SLICE_INDEX) < stop and load(frame, STATUS) == 0:
        index = load(state, SLICE_INDEX)
        until = min(stop, index + load(state, SLICE_SIZE))
        before = clock(process) if until < stop else 0
        call(load(row, KERNEL), index, until, frame + 8 * load(row, ARGUMENTS))
        store(state, SLICE_INDEX, until)
        if until < stop:
            elapsed = clock(process) - before
            if elapsed < SLICE_SHORT:
                store(state, SLICE_SIZE, min(4 * load(state, SLICE_SIZE), 1 << 40))
            elif elapsed > SLICE_LONG:
                store(state, SLICE_SIZE, max(load(state, SLICE_SIZE) >> 1, 1))
            if load(frame, STATUS) == 0 and is_due(frame, 0):
                return PAUSED
    store(state, SLICE_OPEN, 0)
    return FINISHED


def proceed(frame):
    """Walks the program from the frame's ROW on, until it is FINISHED, PAUSED (call again) or FAILED (the status word says why)."""
    process = load(frame, PROCESS)
    pool = load(process, POOL)
    profile = load(frame, PROFILE)
    row = load(frame, ROW)
    while True:
        if profile != 0:
            charge(frame, profile, row)
        op = load(row, OP)
        onward = 8 * ROW_WORDS
        if op == CALL:
            call(load(row, KERNEL), 0, load(row, A), frame + 8 * load(row, ARGUMENTS))
        elif op == PARALLEL:
            run_parallel(pool, process, load(row, KERNEL), frame + 8 * load(row, ARGUMENTS), load(row, A), load(row, B))
        elif op == CALL_DYNAMIC:
            call(load(row, KERNEL), 0, load(load(frame, load(row, A)), 0), frame + 8 * load(row, ARGUMENTS))
        elif op == PARALLEL_DYNAMIC:
            run_parallel(pool, process, load(row, KERNEL), frame + 8 * load(row, ARGUMENTS), load(load(frame, load(row, A)), 0), load(row, B))
        elif op == COPY_WORD:
            store(load(frame, load(row, A)), 0, load(load(frame, load(row, B)), 0))
        elif op == COPY_HALF:
            store32(load(frame, load(row, A)), load32(load(frame, load(row, B))))
        elif op == COPY_BYTE:
            store8(load(frame, load(row, A)), load8(load(frame, load(row, B))))
        elif op == COPY:
            call(load(process, MEMCPY), load(frame, load(row, A)), load(frame, load(row, B)), load(row, C))
        elif op == LOOP_BEGIN:
            state = frame + 8 * load(row, C)
            store(state, LOOP_INDEX, load(load(frame, load(row, A)), 0))
            store(state, LOOP_STOP, load(load(frame, load(row, B)), 0))
            if load(state, LOOP_INDEX) >= load(state, LOOP_STOP):
                onward = load(row, D)
                if load(row, E) != 0:
                    store(frame, STATUS, EMPTY_LOOP)
        elif op == LOOP_END or op == WHILE_END:
            state = frame + 8 * load(row, C)
            index = load(state, LOOP_INDEX) + 1
            store(state, LOOP_INDEX, index)
            if op == WHILE_END or index < load(state, LOOP_STOP):
                onward = load(row, D)
                if tick(frame, state, load(row, E)):
                    store(frame, ROW, row + onward)
                    return PAUSED
        elif op == LOOP_TURN:
            state = frame + 8 * load(row, C)
            store(state, LOOP_INDEX, load(state, LOOP_INDEX) + 1)
            if load(state, LOOP_INDEX) >= load(state, LOOP_STOP):
                onward = load(row, D)
        elif op == LOOP_CALL:
            if loop_call(frame, row) == PAUSED:
                store(frame, ROW, row)
                return PAUSED
        elif op == JUMP:
            onward = load(row, D)
        elif op == BRANCH:
            if load8(load(frame, load(row, A))) == 0:
                onward = load(row, D)
        elif op == END:
            return FINISHED
        if load(frame, STATUS) != 0:
            store(frame, ROW, row)
            return FAILED
        row += onward
    return FINISHED


def copy_bytes(start, stop, arguments):
    """A kernel: copies bytes [start, stop) of argument 1 to argument 0; large copies run on the pool."""
    process = load(load(arguments, 0), PROCESS)
    call(load(process, MEMCPY), load(arguments, 1) + start, load(arguments, 2) + start, stop - start)
    return 0
