"""Who was on a processor, and for how long, as /proc has it."""

import glob


def text(path):
    with open(path) as file:
        return file.read().strip()


def threads_named(start):
    """The numbers of all threads whose names begin so."""
    found = []
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            found += [int(path.split("/")[2])] if text(path).startswith(start) else []
        except OSError:
            pass
    return found


def drivers(end):
    """The threads that are the driver of this end of the pair."""
    threads = threads_named(f"napi/{end}-")
    assert threads, f"{end} has no driver of its own"
    return threads


def ran(process):
    """Seconds that the threads of a process, or a thread of the kernel's, were on a processor."""
    return sum(int(text(path).split()[0]) for path in glob.glob(f"/proc/{process}/task/*/schedstat")) / 1e9
