"""How much memory this process has, has had, and may still have, and how much of the processors: what the host has free, and limits of control groups.

Knows nothing of networks, ranks or plans.
"""
import os
from contextlib import suppress
from pathlib import Path

PAGE = os.sysconf('SC_PAGE_SIZE') if hasattr(os, 'sysconf') else 4096
MARGIN = 1 / 16             # of what is free, left to others


def resident():
    """Bytes of this process's memory in use."""
    try:
        return int(Path('/proc/self/statm').read_text().split()[1]) * PAGE
    except OSError:
        return peak()


def peak():
    """The most bytes of memory that this process has had in use, ever or since `forget_peak`."""
    with suppress(OSError, StopIteration):                  # what getrusage tells may be that of the shell before this program
        with open('/proc/self/status') as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM:'))
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak():
    """Let `peak` count from now on, where the system allows it: compiling kernels may take more than the run that follows."""
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def trim():
    """Give back to the system what was freed (glibc keeps it otherwise), and the code of libraries, such as a compiler's that has done its work: what
    is called again is read from its file, or from the system's cache of it, page by page."""
    import ctypes
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        for first, last in unwritten(Path('/proc/self/smaps').read_text()):
            library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), 4)           # MADV_DONTNEED


def unwritten(smaps):
    """[(first, last)] addresses of those parts of shared libraries that may not be written to and never were, of the text of /proc/PID/smaps."""
    found, part = [], None
    for line in smaps.splitlines():
        head, *rest = line.split()
        if not head.endswith(':'):
            part = tuple(int(end, 16) for end in head.split('-')) if rest[0] in ('r-xp', 'r--p') and '.so' in rest[-1] else None
        elif part and head == 'Anonymous:' and rest[0] == '0':          # counts pages that were changed
            found.append(part)
    return found


def available(root='/'):
    """Bytes that processes here may still take, less a margin; None where the system does not tell.

    The least of what the host has free and of what each control group (v1 or v2) around this process leaves. root: of the file system, for
    tests.
    """
    free = [free for free in (host_free(root), *groups_free(root)) if free is not None]
    return int(min(free) * (1 - MARGIN)) if free else None


def host_free(root='/'):
    """MemAvailable of /proc/meminfo."""
    try:
        with open(Path(root, 'proc/meminfo')) as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith('MemAvailable:')), None)
    except OSError:
        return None


def groups_free(root='/'):
    """What each control group with a limit leaves: its limit less what is used and cannot be reclaimed."""
    found = []
    for folder, version in groups(root, 'memory'):
        limit, usage = ('memory.max', 'memory.current') if version == 2 else ('memory.limit_in_bytes', 'memory.usage_in_bytes')
        with suppress(OSError, ValueError):             # 'max': no limit
            most = int((folder / limit).read_text())
            found.append(max(0, most - int((folder / usage).read_text()) + reclaimable(folder)))
    return found


def processors(root='/'):
    """How many processors' time the control groups around this process allow all that is in them, a fraction where it is part of one; None: no limit."""
    found = []
    for folder, version in groups(root, 'cpu'):
        with suppress(OSError, ValueError):
            files = [folder / 'cpu.max'] if version == 2 else [folder / 'cpu.cfs_quota_us', folder / 'cpu.cfs_period_us']
            quota, period = ' '.join(file.read_text() for file in files).split()
            found += [int(quota) / int(period)] * (int(quota) > 0)
    return min(found, default=None)


def groups(root, controller):
    """(folder, 1 or 2) of each of this process's control groups with a controller, by version, from its own up to the mount point."""
    try:
        own = [line.split(':', 2) for line in Path(root, 'proc/self/cgroup').read_text().splitlines()]
        mounts = [line.split() for line in Path(root, 'proc/self/mountinfo').read_text().splitlines()]
    except OSError:
        return
    for mount in mounts:
        kind, options = mount[mount.index('-') + 1], mount[-1].split(',')
        if kind == 'cgroup2':
            path, version = next((path for number, _, path in own if number == '0'), None), 2
        elif kind == 'cgroup' and controller in options:
            path, version = next((path for _, controllers, path in own if controller in controllers.split(',')), None), 1
        else:
            continue
        if path is not None:
            inside = os.path.relpath(path, mount[3])        # below what is mounted here; a container may see only its own group
            top = Path(root, mount[4].lstrip('/'))
            folder = top if inside.startswith('..') else top / inside
            yield folder, version
            while folder != top and folder != folder.parent:
                folder = folder.parent
                yield folder, version


def reclaimable(folder):
    """Bytes of files that the kernel drops when a group needs memory."""
    with suppress(OSError):
        stat = dict(line.split() for line in (folder / 'memory.stat').read_text().splitlines())
        prefix = 'total_' if 'total_inactive_file' in stat else ''
        return int(stat.get(prefix + 'inactive_file', 0)) + int(stat.get(prefix + 'active_file', 0))
    return 0
