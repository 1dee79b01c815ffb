"""The short way into a program, in the low-level language: a builtin that checks the arguments, runs the program and
makes the results, by the rows of a record (`call_layout.py`).

It only says whether a call is as expected: what is not, the general way sees to. Every object that Python code might
free meanwhile is held until the end.
"""

from __future__ import annotations

from . import call_layout as at
from . import layout
from .memory import call, load, load32, local, store
from .objects_native import digits_of, drop, is_negative, items

FAILED, GOOD, MISSED = 0, 1, 2


def short_call(self, arguments, count, names):
    """The builtin: the result, MISS, or 0 and a Python error."""
    record = load(load(self, 3), 2)
    expected = load(record, at.KEYWORDS)
    named = load(expected, 2)
    if count != load(record, at.ARGUMENTS) or named != (load(names, 2) if names != 0 else 0):
        return miss(record)
    for k in range(named):
        if load(names, 3 + k) != load(expected, 3 + k):
            return miss(record)
    process = load(record, at.PROCESS)
    registers, held = local(at.MOST), local(at.MOST)
    template = load(record, at.TEMPLATE)
    for k in range(load(record, at.REGISTERS)):
        store(registers, k, load(template, k))
    for k in range(count + named):
        store(registers, k, load(arguments, k))
    store(held, 0, 0)
    result = walk(record, process, registers, held)
    for k in range(load(held, 0)):
        drop(process, load(held, k + 1))
    return result


def miss(record):
    """The answer of a call that does not apply."""
    call(load(load(record, at.PROCESS), layout.PY_HOLD), load(record, at.MISS))
    return load(record, at.MISS)


def keep(held, thing):
    """Takes over a reference; the thing."""
    count = load(held, 0) + 1
    store(held, 0, count)
    store(held, count, thing)
    return thing


def hold(process, held, thing):
    """Takes a reference of its own."""
    call(load(process, layout.PY_HOLD), thing)
    return keep(held, thing)


def attribute(process, held, thing, name):
    """An attribute, held; 0 when there is none."""
    found = call(load(process, layout.PY_GET_ATTRIBUTE), thing, name)
    if found == 0:
        call(load(process, layout.PY_CLEAR_ERROR))
        return 0
    return keep(held, found)


def walk(record, process, registers, held):
    """Follows the rows to the result."""
    row = load(record, at.ROWS)
    while True:
        op = load(row, at.OP)
        if op == at.RETURN:
            result = load(registers, load(row, at.A))
            call(load(process, layout.PY_HOLD), result)
            return result
        if op == at.FINISH:
            return finish(record, process, row, registers)
        if op == at.KNOWN:
            if is_known(process, load(registers, load(row, at.A)), load(row, at.B), registers):
                row += load(row, at.C)
            done = GOOD
        elif op < at.RUN:
            done = check(record, process, row, registers, held)
        else:
            done = act(record, process, row, registers, held)
        if done == FAILED:
            return 0
        if done == MISSED:
            return miss(record)
        row += 8 * at.ROW_WORDS
    return 0


def check(record, process, row, registers, held):
    """One of the rows that come before the program runs: GOOD, MISSED, or FAILED with a Python error."""
    op, names = load(row, at.OP), load(record, at.NAMES)
    a, b, c = load(row, at.A), load(row, at.B), load(row, at.C)
    good = 1
    if op == at.SAME:
        good = load(registers, a) == b
    elif op == at.FITS:
        good = fits(process, names, row, registers, held)
    elif op == at.KIND:
        good = load(load(registers, a), 1) == b
    elif op == at.WHOLE:
        good = is_whole(process, load(registers, a), b)
    elif op == at.EPOCH:
        good = load(load(names, at.EPOCH_CELL), 0) == load(load(load(record, at.EPOCHS), 3), 0)
        store(registers, a, hold(process, held, load(load(names, at.EPOCH_CELL), 0)))
    elif op == at.UNMOVED:
        good = load(load(names, at.EPOCH_CELL), 0) == load(registers, a)
    elif op == at.UNPACK:
        good = unpack(process, row, registers, held)
    elif op == at.UNPACK_DICT:
        good = unpack_dict(process, row, registers, held)
    elif op == at.HOLD:
        hold(process, held, load(registers, a))
    elif op == at.TWIN:
        good = load(registers, a) == load(registers, b)
    elif op == at.LEARN:
        learn(process, names, load(registers, b), a, registers, held)
    elif op == at.DISTINCT:
        good = are_distinct(row, registers)
    elif op == at.ATTRIBUTE:
        good = attribute(process, held, load(registers, a), b)
        store(registers, c, good)
    elif op == at.ENTRY_OF:
        good = call(load(process, layout.PY_GET_ITEM), a, b)
        store(registers, c, good)
        if good == 0:
            call(load(process, layout.PY_CLEAR_ERROR))
        else:
            hold(process, held, good)
    elif op == at.CONTENT:
        good = load(a, 2)
        store(registers, b, good)
        if good != 0:
            hold(process, held, good)
    elif op == at.ELEMENTS:
        good = has_elements(process, load(registers, a), b)
    elif op == at.EQUAL:
        good = equals(process, load(registers, a), b, c)
    elif op == at.HOLDS:
        answer = call(load(process, layout.PY_CALL), a)
        if answer == 0:
            return FAILED
        good = keep(held, answer) == load(names, at.TRUE)
    return GOOD if good != 0 else MISSED


def unpack(process, row, registers, held):
    """Whether a container is as expected: then its elements are in registers."""
    thing, count = load(registers, load(row, at.A)), load(row, at.C)
    if load(thing, 1) != load(row, at.B) or load(thing, 2) != count:
        return 0
    elements, target = items(process, thing), registers + 8 * load(row, at.D)
    for k in range(count):
        store(target, k, hold(process, held, load(elements, k)))
    return 1


def unpack_dict(process, row, registers, held):
    """The same for a dict, whose keys are told by identity."""
    thing, keys, position = load(registers, load(row, at.A)), load(row, at.B), local(3)
    if load(thing, 1) != load(process, layout.DICT_TYPE):
        return 0
    store(position, 0, 0)
    for k in range(load(keys, 2)):
        more = call(load(process, layout.PY_NEXT_ENTRY), thing, position, position + 8, position + 16) & 0xFFFFFFFF
        if more == 0 or load(position, 1) != load(keys, 3 + k):
            return 0
        store(registers, load(row, at.D) + k, hold(process, held, load(position, 2)))
    return call(load(process, layout.PY_NEXT_ENTRY), thing, position, position + 8, position + 16) & 0xFFFFFFFF == 0


def is_whole(process, thing, least):
    """Whether a thing is an int of at most two digits, and at least `least`."""
    if load(thing, 1) != load(process, layout.INT_TYPE):
        return 0
    digits = digits_of(process, thing)
    if digits > 2:
        return 0
    value = load32(thing + 24) if digits > 0 else 0
    if digits == 2:
        value |= load32(thing + 28) << 30
    return (-value if is_negative(process, thing) else value) >= least


def equals(process, thing, expected, kind):
    """Whether a thing has a type and a value."""
    if load(thing, 1) != kind:
        return 0
    return thing == expected or call(load(process, layout.PY_EQUAL), thing, expected, 2) & 0xFFFFFFFF == 1


def has_elements(process, thing, expected):
    """Whether a thing is a list with the very elements of a tuple."""
    count = load(expected, 2)
    if load(thing, 1) != load(process, layout.LIST_TYPE) or load(thing, 2) != count:
        return 0
    for k in range(count):
        if load(load(thing, 3), k) != load(expected, 3 + k):
            return 0
    return 1


def are_distinct(row, registers):
    """Whether no two of the tensors share memory, nor one of them with a captured one."""
    numbers, count = load(row, at.A), load(row, at.B)
    others, known = load(row, at.C), load(row, at.D)
    for k in range(count):
        share = load(registers, load(numbers, k))
        for i in range(k):
            if load(registers, load(numbers, i)) == share:
                return 0
        for i in range(known):
            if load(others, i) == share:
                return 0
    return 1


def fits(process, names, row, registers, held):
    """Whether a thing is a tensor as expected: then its array and what it shares memory through are in registers."""
    thing, fit = load(registers, load(row, at.A)), load(row, at.C)
    if load(thing, 1) != load(fit, at.FIT_TYPE):
        return 0
    array = attribute(process, held, thing, load(names, at.ARRAY))
    if array == 0 or not is_like(process, array, fit):
        return 0
    grad, base = load(names, at.REQUIRES_GRAD), load(names, at.BASE)
    if attribute(process, held, thing, grad) != load(fit, at.FIT_GRAD):
        return 0
    if load(fit, at.FIT_GRAD) == load(names, at.TRUE):
        made = attribute(process, held, thing, load(names, at.EDGE)) != load(names, at.NONE)
        if made == load(fit, at.FIT_LEAF):
            return 0
    if load(fit, at.FIT_WRITTEN) != 0:
        if attribute(process, held, thing, load(names, at.FROZEN)) != load(names, at.FALSE):
            return 0
    if attribute(process, held, thing, base) != load(names, at.NONE):
        if load(fit, at.FIT_VIEW) == 0 or not is_plain_view(process, names, thing, held):
            return 0
    share = attribute(process, held, thing, load(names, at.STORAGE_OR_NONE))
    store(registers, load(row, at.B), array)
    store(registers, load(row, at.D), thing if share == load(names, at.NONE) else share)
    return 1


def is_known(process, thing, memory, registers):
    """Whether a thing is the tensor that was remembered; what was found of it is in registers then. No Python code runs
    between the question and the answer: another thread may be learning."""
    reference, count = load(load(load(memory, at.MEMORY_REFERENCE), 3), 0), load(memory, at.MEMORY_COUNT)
    if reference == load(process, layout.NONE) or load(reference, 2) != thing or thing == load(process, layout.NONE):
        return 0
    numbers = memory + 8 * at.MEMORY_REGISTERS
    for k in range(count):
        store(registers, load(numbers, k), load(numbers, count + k))
    return 1


def learn(process, names, thing, memory, registers, held):
    """Remembers a tensor, if that is wanted and it is no view: the gradient state of a view changes with others'."""
    numbers, count = memory + 8 * at.MEMORY_REGISTERS, load(memory, at.MEMORY_COUNT)
    if load(memory, at.MEMORY_OPEN) == 0:
        return 0
    store(memory, at.MEMORY_OPEN, 0)
    for k in range(0, count, 3):
        tensor = load(registers, load(numbers, k))
        storage = attribute(process, held, tensor, load(names, at.STORAGE))
        if storage == 0 or attribute(process, held, tensor, load(names, at.BASE)) != load(names, at.NONE):
            return 0
        store(registers, load(numbers, k + 2), storage)
    reference = call(load(process, layout.PY_NEW_REFERENCE), thing, 0)
    if reference == 0:
        call(load(process, layout.PY_CLEAR_ERROR))
        return 0
    for k in range(count):
        store(numbers, count + k, load(registers, load(numbers, k)))
    return replace(process, load(memory, at.MEMORY_REFERENCE), reference)


def replace(process, holder, thing):
    """Puts a new reference into a list of one element."""
    before = load(load(holder, 3), 0)
    store(load(holder, 3), 0, thing)
    return drop(process, before)


def is_plain_view(process, names, thing, held):
    """Whether no gradient flows through a view."""
    arguments = local(1)
    store(arguments, 0, thing)
    answer = call(load(process, layout.PY_CALL_WITH), load(names, at.ASK_GRAD), arguments, 1, 0)
    if answer == 0:
        call(load(process, layout.PY_CLEAR_ERROR))
        return 0
    return keep(held, answer) == load(names, at.FALSE)


def is_like(process, array, fit):
    """Whether an array has the expected type, dtype, sizes and layout."""
    axes = load(fit, at.FIT_AXES)
    if load(array, 1) != load(process, layout.ARRAY_TYPE) or load(array, 7) != load(fit, at.FIT_DTYPE):
        return 0
    if load32(array + 24) != axes:
        return 0
    for k in range(axes):
        if load(load(array, 4), k) != load(fit, at.FIT_SIZES + k):
            return 0
    if load(fit, at.FIT_STRIDED) == 0:
        return load32(array + 64) & 1
    for k in range(axes):
        if load(load(array, 5), k) != load(fit, at.FIT_SIZES + axes + k):
            return 0
    return 1


def act(record, process, row, registers, held):
    """One of the rows that run the program and make results: GOOD, or FAILED with a Python error."""
    op, names = load(row, at.OP), load(record, at.NAMES)
    a, b, c, d = load(row, at.A), load(row, at.B), load(row, at.C), load(row, at.D)
    if op == at.RUN:
        return run_program(record, process, registers + 8 * a, registers, held)
    if op == at.WRITTEN:
        return move_version(process, names, load(registers, a), held)
    if op == at.TENSOR:
        thing = call(load(process, layout.PY_CALL), load(names, at.TENSOR_TYPE))
        if thing == 0:
            return FAILED
        store(registers, a, keep(held, thing))
        if set_attribute(process, thing, load(names, at.ARRAY), load(registers, b)):
            return FAILED
        if c != 0 and set_attribute(process, thing, load(names, at.REQUIRES_GRAD), c):
            return FAILED
        if d != 0 and set_attribute(process, thing, load(names, at.EDGE), d):
            return FAILED
    elif op == at.NUMBER:
        method = attribute(process, held, load(registers, b), load(names, at.ITEM))
        number = call(load(process, layout.PY_CALL), method) if method != 0 else 0
        if number == 0:
            return FAILED
        store(registers, a, keep(held, number))
    elif op == at.SET_ATTRIBUTE:
        return FAILED if set_attribute(process, load(registers, a), b, load(registers, c)) else GOOD
    elif op == at.SET_ENTRY:
        failed = call(load(process, layout.PY_SET_ITEM), load(registers, a), b, load(registers, c)) & 0xFFFFFFFF
        return FAILED if failed else GOOD
    elif op == at.GATHER:
        gathered = gather(process, b, c, d, registers)
        if gathered == 0:
            return FAILED
        store(registers, a, keep(held, gathered))
    elif op == at.MOVE:
        return move_epoch(record, process, names, a)
    return GOOD


def set_attribute(process, thing, name, value):
    """Whether setting an attribute failed."""
    return call(load(process, layout.PY_SET_ATTRIBUTE), thing, name, value) & 0xFFFFFFFF


def run_program(record, process, results, registers, held):
    """Runs the program on the inputs in registers."""
    entry, numbers, objects = load(record, at.ENTRY), load(record, at.INPUTS), local(at.MOST)
    count = load(entry, layout.ENTRY_INPUTS)
    for k in range(count):
        store(objects, k, hold(process, held, load(registers, load(numbers, k))))
    if call(load(process, layout.RUN), entry, objects, count, results, load(process, layout.NONE)):
        return FAILED
    for k in range(load(entry, layout.ENTRY_OUTPUTS)):
        keep(held, load(results, k))
    return GOOD


def move_version(process, names, thing, held):
    """Notes a write in the version of a tensor's storage."""
    storage = attribute(process, held, thing, load(names, at.STORAGE_OR_NONE))
    if storage == load(names, at.NONE):
        storage = attribute(process, held, thing, load(names, at.STORAGE))
    version = attribute(process, held, storage, load(names, at.VERSION)) if storage != 0 else 0
    if version == 0:
        return FAILED
    version = call(load(process, layout.PY_ADD), version, load(names, at.ONE))
    if version == 0:
        return FAILED
    keep(held, version)
    return FAILED if set_attribute(process, storage, load(names, at.VERSION), version) else GOOD


def gather(process, as_list, numbers, count, registers):
    """A new tuple or list of what is in registers."""
    gathered = call(load(process, layout.PY_NEW_LIST if as_list != 0 else layout.PY_NEW_TUPLE), count)
    if gathered != 0:
        elements = items(process, gathered)
        for k in range(count):
            thing = load(registers, load(numbers, k))
            call(load(process, layout.PY_HOLD), thing)
            store(elements, k, thing)
    return gathered


def move_epoch(record, process, names, goes_on):
    """Notes that tracked state was written; the record holds for the new epoch too when nobody else wrote meanwhile."""
    cell = load(names, at.EPOCH_CELL)
    unmoved = load(cell, 0) == load(load(load(record, at.EPOCHS), 3), 0)
    number = call(load(process, layout.PY_ADVANCE), load(names, at.NUMBERS))
    if number == 0:
        return FAILED
    before = load(cell, 0)
    store(cell, 0, number)
    drop(process, before)
    if unmoved and goes_on != 0:
        call(load(process, layout.PY_HOLD), number)
        replace(process, load(record, at.EPOCHS), number)
    return GOOD


def finish(record, process, row, registers):
    """The result of the Python function that goes on from here."""
    arguments, entry = local(2), load(record, at.ENTRY)
    leaves = gather(process, 1, load(row, at.B), load(row, at.C), registers)
    inputs = load(process, layout.NONE)
    if load(row, at.D) != 0:
        inputs = gather(process, 1, load(record, at.INPUTS), load(entry, layout.ENTRY_INPUTS), registers)
    else:
        call(load(process, layout.PY_HOLD), inputs)
    result = 0
    if leaves != 0 and inputs != 0:
        store(arguments, 0, leaves)
        store(arguments, 1, inputs)
        result = call(load(process, layout.PY_CALL_WITH), load(row, at.A), arguments, 2, 0)
    if leaves != 0:
        drop(process, leaves)
    if inputs != 0:
        drop(process, inputs)
    return result
