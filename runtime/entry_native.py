"""How Python enters a program, in the low-level language: the builtin `run(inputs, progress=None)` of an executable.

It makes the results, takes a free frame and runs. The interpreter's lock is held all the time (so lists of free frames
need no lock of their own), but for the program itself unless that is brief.
"""

from __future__ import annotations

from . import layout as at
from .executor_native import bind, proceed
from .memory import call, load, local, store
from .objects_native import drop, items


def enter(self, arguments, count, names):
    """The builtin: a list of new arrays for the results, or 0 and a Python error."""
    count += load(names, 2) if names != 0 else 0
    entry = load(load(self, 3), 2)
    process = load(entry, at.ENTRY_PROCESS)
    inputs = load(arguments, 0) if count > 0 else load(process, at.NONE)
    kind = load(inputs, 1)
    known = kind == load(process, at.TUPLE_TYPE) or kind == load(process, at.LIST_TYPE)
    results = call(load(process, at.PY_NEW_LIST), load(entry, at.ENTRY_OUTPUTS))
    if results == 0:
        return 0
    progress = load(arguments, 1) if count > 1 else load(process, at.NONE)
    if run(entry, items(process, inputs) if known else 0, load(inputs, 2) if known else -1, load(results, 3), progress):
        drop(process, results)
        return 0
    return results


def run(entry, objects, count, results, progress):
    """Runs the program on `count` input objects; `results` get references to new arrays. 0, or 1 and a Python error."""
    process = load(entry, at.ENTRY_PROCESS)
    if load(entry, at.ENTRY_PARALLEL) != 0 and load(process, at.POOL_READY) == 0:
        done = call(load(process, at.PY_CALL), load(entry, at.ENTRY_ENSURE))
        if done == 0:
            return 1
        drop(process, done)
    frame = take_frame(entry, process)
    if frame == 0:
        return 1
    if make_results(entry, process, results):
        give_frame(entry, frame)
        return 1
    if load(entry, at.ENTRY_BLAS) != 0:
        pin_blas(process)
    failed = run_frame(entry, process, frame, objects, count, results, progress)
    if load(entry, at.ENTRY_BLAS) != 0:
        unpin_blas(process)
    if failed:
        drop_results(process, results, load(entry, at.ENTRY_OUTPUTS))
    else:
        give_frame(entry, frame)
    return failed


def take_frame(entry, process):
    """A frame that nobody uses; 0 and a Python error when there is no memory."""
    frame = load(entry, at.ENTRY_FREE)
    if frame != 0:
        store(entry, at.ENTRY_FREE, load(frame, at.NEXT))
        return frame
    number = call(load(process, at.PY_CALL), load(entry, at.ENTRY_NEW_FRAME))
    if number != 0:
        frame = call(load(process, at.PY_INT_VALUE), number)
        drop(process, number)
    return frame


def give_frame(entry, frame):
    """Lets a later call have the frame."""
    store(frame, at.NEXT, load(entry, at.ENTRY_FREE))
    store(entry, at.ENTRY_FREE, frame)
    return 0


def make_results(entry, process, results):
    """New arrays; 1 and a Python error when there is no memory."""
    row = entry + 8 * at.ENTRY_RESULTS
    for k in range(load(entry, at.ENTRY_OUTPUTS)):
        call(load(process, at.PY_HOLD), load(row, 2))  # the array takes the reference
        array = call(load(process, at.NEW_ARRAY), load(row, 0), load(row, 1), load(row, 2), 0)
        if array == 0:
            drop_results(process, results, k)
            return 1
        store(results, k, array)
        row += 24
    return 0


def drop_results(process, results, count):
    """Gives up the first `count` results."""
    for k in range(count):
        array = load(results, k)
        store(results, k, 0)
        drop(process, array)
    return 0


def run_frame(entry, process, frame, objects, count, results, progress):
    """Binds the arguments and runs; 1 and a Python error when that failed: the frame is not used again then."""
    table = load(frame, at.BINDINGS)
    inputs, outputs = load(entry, at.ENTRY_INPUTS), load(entry, at.ENTRY_OUTPUTS)
    store(frame, at.STATUS, 0)
    store(frame, at.DEADLINE, 0)
    store(frame, at.ROW, load(frame, at.PROGRAM))
    store(frame, at.PROFILE_ROW, 0)
    if count == inputs:
        bound = bind(frame, process, table + 8 * at.BIND_FIRST, objects, 0, inputs)
        bind(frame, process, bound, results, inputs, outputs)
    else:
        store(frame, at.STATUS, at.BAD_COUNT)
    code = at.FAILED
    if load(frame, at.STATUS) == 0 and load(entry, at.ENTRY_BRIEF) != 0:
        code = proceed(frame)
    elif load(frame, at.STATUS) == 0:
        thread = call(load(process, at.PY_UNLOCK))
        code = proceed(frame)
        call(load(process, at.PY_LOCK), thread)
    return code != at.FINISHED and go_on(entry, process, frame, code, progress)


def go_on(entry, process, frame, code, progress):
    """Lets Python see to a program that did not finish at once; 1 and a Python error, or 0 when it finished."""
    arguments = local(3)
    store(arguments, 0, call(load(process, at.PY_NEW_INT), frame))
    store(arguments, 1, call(load(process, at.PY_NEW_INT), code))
    store(arguments, 2, progress)
    done = call(load(process, at.PY_CALL_WITH), load(entry, at.ENTRY_GO_ON), arguments, 3, 0)
    drop(process, load(arguments, 0))
    drop(process, load(arguments, 1))
    if done == 0:
        return 1
    drop(process, done)
    return 0


def pin_blas(process):
    """Keeps BLAS on one thread from the first program that enters to the last that leaves."""
    inside = load(process, at.PIN_INSIDE)
    store(process, at.PIN_INSIDE, inside + 1)
    if inside == 0 and load(process, at.PIN_GET) != 0:
        before = call(load(process, at.PIN_GET)) & 0xFFFFFFFF
        store(process, at.PIN_BEFORE, before)
        if before != 1:
            call(load(process, at.PIN_SET), 1)
    return 0


def unpin_blas(process):
    """Gives BLAS its threads back when the last program leaves."""
    inside = load(process, at.PIN_INSIDE) - 1
    store(process, at.PIN_INSIDE, inside)
    if inside == 0 and load(process, at.PIN_GET) != 0 and load(process, at.PIN_BEFORE) != 1:
        call(load(process, at.PIN_SET), load(process, at.PIN_BEFORE))
    return 0
