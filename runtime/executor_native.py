"""The executor, in the low-level language: binds a call's arguments to a frame and walks the rows of its program
(`layout.py`). `entry_native.py` leads here."""

from __future__ import annotations

from . import layout as at
from .memory import call, load, load8, load32, store, store8, store32
from .objects_native import digits_of, is_negative
from .threads_native import clock, run_parallel


def bind(frame, process, table, objects, first, count):
    """Writes the addresses of `count` arguments wherever the program reads them; the table's next entry."""
    for k in range(count):
        thing = load(objects, k)
        kind = load(thing, 1)
        if kind == load(process, at.ARRAY_TYPE):
            address = load(thing, 2)
            if load(thing, 8) & 1 == 0:
                store(frame, at.STATUS, at.BAD_LAYOUT)
        elif kind == load(process, at.FLOAT_TYPE):
            address = thing + 16
        elif kind == load(process, at.INT_TYPE) and first == 0:
            address = frame + 8 * (load(load(frame, at.BINDINGS), at.BIND_INTEGERS) + k)
            store(address, 0, integer(frame, process, thing))
        else:
            address = 0
            store(frame, at.STATUS, at.BAD_ARGUMENT)
        end = table + 8 + 16 * load(table, 0)
        table += 8
        while table < end:
            store(frame + load(table, 0), 0, address + load(table, 1))
            table += 16
    return table


def integer(frame, process, thing):
    """The value of a Python int; the frame's status says when it is too large."""
    digits, value = digits_of(process, thing), 0
    for i in range(min(digits, 3)):
        value |= load32(thing + 24 + 4 * i) << (30 * i)
    if digits > 3 or (digits == 3 and load32(thing + 32) > 7):
        store(frame, at.STATUS, at.BAD_INTEGER)
    return -value if is_negative(process, thing) else value


def charge(frame, profile, row):
    """Charges the time since the last charge to the row that ran, and puts `row` on the clock."""
    now = clock(load(frame, at.PROCESS))
    before = load(frame, at.PROFILE_ROW)
    if before != 0:
        entry = profile + 16 * ((before - load(frame, at.PROGRAM)) // (8 * at.ROW_WORDS))
        store(entry, 0, load(entry, 0) + 1)
        store(entry, 1, load(entry, 1) + now - load(frame, at.PROFILE_TIME))
    store(frame, at.PROFILE_ROW, row)
    store(frame, at.PROFILE_TIME, now)
    return 0


def is_due(frame, patience):
    """Whether it is time to return to Python; the first question of a run starts the wait."""
    now = clock(load(frame, at.PROCESS))
    deadline = load(frame, at.DEADLINE)
    if deadline == 0:
        store(frame, at.DEADLINE, now + at.PATIENCE)
        return 0
    return now >= deadline + patience


def look(frame, state, outermost):
    """A loop's look at the clock, every so many iterations: adapts how many, and says whether to return to Python."""
    now = clock(load(frame, at.PROCESS))
    elapsed = now - load(state, at.LOOP_LAST)
    size = load(state, at.LOOP_SIZE)
    if elapsed < at.LOOK_SHORT:
        size = min(2 * size, 1 << 20)
    elif elapsed > at.LOOK_LONG:
        size = max(size >> 1, 1)
    store(state, at.LOOP_LAST, now)
    store(state, at.LOOP_SIZE, size)
    store(state, at.LOOP_BUDGET, size)
    return is_due(frame, 0 if outermost else at.MORE_PATIENCE)


def tick(frame, state, outermost):
    """Called after every iteration: whether the loop has to return to Python now."""
    budget = load(state, at.LOOP_BUDGET) - 1
    store(state, at.LOOP_BUDGET, budget)
    return budget <= 0 and look(frame, state, outermost)


def loop_call(frame, row):
    """Runs a loop kernel in slices of time; PAUSED between two slices, FINISHED after the last."""
    state = frame + 8 * load(row, at.C)
    if load(state, at.SLICE_OPEN) == 0:
        store(state, at.SLICE_INDEX, load(load(frame, load(row, at.A)), 0))
        store(state, at.SLICE_STOP, load(load(frame, load(row, at.B)), 0))
        store(state, at.SLICE_OPEN, 1)
        if load(row, at.E) != 0 and load(state, at.SLICE_INDEX) >= load(state, at.SLICE_STOP):
            store(frame, at.STATUS, at.EMPTY_LOOP)
    process = load(frame, at.PROCESS)
    stop = load(state, at.SLICE_STOP)
    while load(state, at.SLICE_INDEX) < stop and load(frame, at.STATUS) == 0:
        index = load(state, at.SLICE_INDEX)
        until = min(stop, index + load(state, at.SLICE_SIZE))
        before = clock(process) if until < stop else 0
        call(load(row, at.KERNEL), index, until, frame + 8 * load(row, at.ARGUMENTS))
        store(state, at.SLICE_INDEX, until)
        if until < stop:
            elapsed = clock(process) - before
            if elapsed < at.SLICE_SHORT:
                store(state, at.SLICE_SIZE, min(4 * load(state, at.SLICE_SIZE), 1 << 40))
            elif elapsed > at.SLICE_LONG:
                store(state, at.SLICE_SIZE, max(load(state, at.SLICE_SIZE) >> 1, 1))
            if load(frame, at.STATUS) == 0 and is_due(frame, 0):
                return at.PAUSED
    store(state, at.SLICE_OPEN, 0)
    return at.FINISHED


def proceed(frame):
    """Walks the program from the frame's ROW on, until it is FINISHED, PAUSED (call again) or FAILED (the status word
    says why)."""
    process = load(frame, at.PROCESS)
    pool = load(process, at.POOL)
    profile = load(frame, at.PROFILE)
    row = load(frame, at.ROW)
    while True:
        if profile != 0:
            charge(frame, profile, row)
        op = load(row, at.OP)
        onward = 8 * at.ROW_WORDS
        if op == at.CALL:
            call(load(row, at.KERNEL), 0, load(row, at.A), frame + 8 * load(row, at.ARGUMENTS))
        elif op == at.PARALLEL:
            run_parallel(
                pool,
                process,
                load(row, at.KERNEL),
                frame + 8 * load(row, at.ARGUMENTS),
                load(row, at.A),
                load(row, at.B),
            )
        elif op == at.CALL_DYNAMIC:
            call(load(row, at.KERNEL), 0, load(load(frame, load(row, at.A)), 0), frame + 8 * load(row, at.ARGUMENTS))
        elif op == at.PARALLEL_DYNAMIC:
            run_parallel(
                pool,
                process,
                load(row, at.KERNEL),
                frame + 8 * load(row, at.ARGUMENTS),
                load(load(frame, load(row, at.A)), 0),
                load(row, at.B),
            )
        elif op == at.AIM:
            first = load(frame, load(row, at.A)) + load(row, at.E)
            moved = load(row, at.C) * load(load(frame, load(row, at.B)), 0)
            store(frame, load(row, at.ARGUMENTS), first + moved)
        elif op == at.COPY_WORD:
            store(load(frame, load(row, at.A)), 0, load(load(frame, load(row, at.B)), 0))
        elif op == at.COPY_HALF:
            store32(load(frame, load(row, at.A)), load32(load(frame, load(row, at.B))))
        elif op == at.COPY_BYTE:
            store8(load(frame, load(row, at.A)), load8(load(frame, load(row, at.B))))
        elif op == at.COPY:
            call(load(process, at.MEMCPY), load(frame, load(row, at.A)), load(frame, load(row, at.B)), load(row, at.C))
        elif op == at.LOOP_BEGIN:
            state = frame + 8 * load(row, at.C)
            store(state, at.LOOP_INDEX, load(load(frame, load(row, at.A)), 0))
            store(state, at.LOOP_STOP, load(load(frame, load(row, at.B)), 0))
            if load(state, at.LOOP_INDEX) >= load(state, at.LOOP_STOP):
                onward = load(row, at.D)
                if load(row, at.E) != 0:
                    store(frame, at.STATUS, at.EMPTY_LOOP)
        elif op == at.LOOP_END or op == at.WHILE_END:
            state = frame + 8 * load(row, at.C)
            index = load(state, at.LOOP_INDEX) + 1
            store(state, at.LOOP_INDEX, index)
            if op == at.WHILE_END or index < load(state, at.LOOP_STOP):
                onward = load(row, at.D)
                if tick(frame, state, load(row, at.E)):
                    store(frame, at.ROW, row + onward)
                    return at.PAUSED
        elif op == at.LOOP_TURN:
            state = frame + 8 * load(row, at.C)
            store(state, at.LOOP_INDEX, load(state, at.LOOP_INDEX) + 1)
            if load(state, at.LOOP_INDEX) >= load(state, at.LOOP_STOP):
                onward = load(row, at.D)
        elif op == at.LOOP_CALL:
            if loop_call(frame, row) == at.PAUSED:
                store(frame, at.ROW, row)
                return at.PAUSED
        elif op == at.JUMP:
            onward = load(row, at.D)
        elif op == at.BRANCH:
            if load8(load(frame, load(row, at.A))) == 0:
                onward = load(row, at.D)
        elif op == at.END:
            return at.FINISHED
        if load(frame, at.STATUS) != 0:
            store(frame, at.ROW, row)
            return at.FAILED
        row += onward
    return at.FINISHED


def copy_bytes(start, stop, arguments):
    """A kernel: copies bytes [start, stop) of argument 1 to argument 0; large copies run on the pool."""
    process = load(load(arguments, 0), at.PROCESS)
    call(load(process, at.MEMCPY), load(arguments, 1) + start, load(arguments, 2) + start, stop - start)
    return 0
