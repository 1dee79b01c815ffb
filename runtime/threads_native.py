"""The thread pool's native half, in the low-level language: chunks are claimed, nobody waits for a worker that
claimed nothing.

A job is published as TICKET = generation << 24 | 0; whoever wants a chunk adds one to TICKET and owns the chunk whose
number it saw, if the generation is still that of JOB. A claim that comes late for an older job sees another
generation, or a number past the last chunk, and is void. As long as a claimed chunk is not DONE its job stays
published, so a claimant reads a consistent job.
"""

from __future__ import annotations

from . import layout as at
from .memory import atomic_add, atomic_load, atomic_store, call, exchange_if, load, local, pause, store


def clock(process):
    """Nanoseconds of the monotonic clock."""
    now = local(2)
    call(load(process, at.CLOCK), load(process, at.CLOCK_ID), now)
    return load(now, 0) * 1000000000 + load(now, 1)


def claim_and_run(pool):
    """Runs chunks of the current job until none is left; how many this thread ran."""
    ran = 0
    while True:
        ticket = atomic_add(pool, at.TICKET, 1)
        job = atomic_load(pool, at.JOB)
        k = ticket & at.CHUNK_MASK
        if ticket >> at.CHUNK_BITS != job >> at.CHUNK_BITS or k >= job & at.CHUNK_MASK:
            return ran
        chunk = load(pool, at.JOB_CHUNK)
        start = k * chunk
        call(
            load(pool, at.JOB_KERNEL),
            start,
            min(load(pool, at.JOB_EXTENT), start + chunk),
            load(pool, at.JOB_ARGUMENTS),
        )
        atomic_add(pool, at.DONE, 1)
        ran += 1
    return ran


def has_chunks(pool):
    """Whether the current job has chunks that nobody claimed."""
    ticket = atomic_load(pool, at.TICKET)
    job = atomic_load(pool, at.JOB)
    return ticket >> at.CHUNK_BITS == job >> at.CHUNK_BITS and ticket & at.CHUNK_MASK < job & at.CHUNK_MASK


def work(pool, process):
    """The life of a worker: it runs chunks, looks for more for a while, sleeps until it is woken."""
    while atomic_load(pool, at.STOP) == 0:
        claim_and_run(pool)
        spins = 0
        while spins < at.SPINS and not has_chunks(pool) and atomic_load(pool, at.STOP) == 0:
            spins += 1
            rest(process, spins)
        if spins == at.SPINS:
            epoch = atomic_load(pool, at.EPOCH)
            atomic_add(pool, at.SLEEPERS, 1)
            if not has_chunks(pool) and atomic_load(pool, at.STOP) == 0:
                sleep(pool, process, epoch)
            atomic_add(pool, at.SLEEPERS, -1)
    atomic_add(pool, at.WORKERS, -1)
    return 0


def rest(process, spins):
    """One turn of a waiting loop: now and then another thread may have this processor."""
    if spins & at.YIELDING == 0:
        call(load(process, at.YIELD))
    else:
        pause()
    return 0


def sleep(pool, process, epoch):
    """Sleeps while EPOCH is `epoch` (futex), or for a millisecond where there is no futex."""
    if load(process, at.FUTEX) != 0:
        call(load(process, at.WAIT), load(process, at.FUTEX), pool + 8 * at.EPOCH, 128, epoch, 0, 0, 0)
    else:
        call(load(process, at.WAIT), 1000)
    return 0


def wake(pool, process):
    """Wakes every sleeping worker."""
    atomic_add(pool, at.EPOCH, 1)
    if load(process, at.FUTEX) != 0:
        call(load(process, at.WAIT), load(process, at.FUTEX), pool + 8 * at.EPOCH, 129, 1000, 0, 0, 0)
    return 0


def run_alone(kernel, arguments, extent, chunk):
    """The same chunks one after another on this thread."""
    start = 0
    while start < extent:
        call(kernel, start, min(extent, start + chunk), arguments)
        start += chunk
    return 0


def run_parallel(pool, process, kernel, arguments, extent, chunk):
    """Runs `kernel` over the chunks of [0, extent) on the pool; alone when there are no workers, when another call has
    them, or when they have lately been no help."""
    chunks = (extent + chunk - 1) // chunk
    if chunks < 2 or chunks > at.CHUNK_MASK >> 1 or atomic_load(pool, at.WORKERS) == 0 or spares(pool):
        return run_alone(kernel, arguments, extent, chunk)
    if not exchange_if(pool, at.OWNER, 0, 1):
        return run_alone(kernel, arguments, extent, chunk)
    publish(pool, process, kernel, arguments, extent, chunk, chunks)
    began = clock(process)
    own = claim_and_run(pool)
    worked = clock(process) - began
    spins = 0
    while atomic_load(pool, at.DONE) < chunks:
        spins += 1
        rest(process, spins)
    elapsed = worked if spins == 0 else clock(process) - began
    judge(pool, elapsed, worked * chunks // max(own, 1))
    atomic_store(pool, at.OWNER, 0)
    return 0


def publish(pool, process, kernel, arguments, extent, chunk, chunks):
    """Makes a job known, and wakes workers that sleep."""
    generation = ((load(pool, at.JOB) >> at.CHUNK_BITS) + 1) << at.CHUNK_BITS
    atomic_store(pool, at.DONE, 0)
    store(pool, at.JOB_KERNEL, kernel)
    store(pool, at.JOB_ARGUMENTS, arguments)
    store(pool, at.JOB_EXTENT, extent)
    store(pool, at.JOB_CHUNK, chunk)
    atomic_store(pool, at.JOB, generation | chunks)
    atomic_store(pool, at.TICKET, generation)
    if atomic_load(pool, at.SLEEPERS) != 0:
        wake(pool, process)
    return 0


def spares(pool):
    """Whether the workers are spared this job; counts it."""
    left = atomic_load(pool, at.REST)
    if left > 0:
        atomic_store(pool, at.REST, left - 1)
    return left > 0


def judge(pool, elapsed, alone):
    """Compares a shared job with what it would have cost alone. Where other processes keep the processors busy, a
    worker may claim a chunk and then wait for its turn: jobs are not shared for a while, longer with every failure."""
    spared = load(pool, at.REST_NEXT)
    if elapsed > alone + (alone >> 3) + at.LOSS:
        spared = min(2 * spared + 1, at.REST_MOST)
        atomic_store(pool, at.REST, spared)
    else:
        spared >>= 1
    store(pool, at.REST_NEXT, spared)
    return 0
