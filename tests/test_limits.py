"""Free memory: the host's, and that of control groups of both versions, as their files tell it."""
import numpy as np
import pytest

from mpi_ftp.limits import MARGIN, available, forget_peak, groups_free, host_free, peak, processors, resident, trim, unwritten

MIB = 1 << 20


def tree(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


MEMINFO = 'MemTotal: 8000000 kB\nMemFree: 100 kB\nMemAvailable: 4096000 kB\n'
V1 = {'proc/meminfo': MEMINFO, 'proc/self/cgroup': '4:memory:/lab/pi1\n1:cpu:/\n0::/\n',
      'proc/self/mountinfo': '35 31 0:32 / /cg/memory rw,relatime - cgroup none rw,memory\n36 31 0:33 / /cg/cpu rw - cgroup none rw,cpu\n',
      'cg/memory/lab/pi1/memory.limit_in_bytes': f'{700 * MIB}\n', 'cg/memory/lab/pi1/memory.usage_in_bytes': f'{300 * MIB}\n',
      'cg/memory/lab/pi1/memory.stat': f'inactive_file 1\ntotal_inactive_file {100 * MIB}\ntotal_active_file {50 * MIB}\n',
      'cg/memory/lab/memory.limit_in_bytes': '9223372036854771712\n', 'cg/memory/lab/memory.usage_in_bytes': '1000\n'}
V2 = {'proc/meminfo': MEMINFO, 'proc/self/cgroup': '0::/user/job\n',
      'proc/self/mountinfo': '35 31 0:32 / /cg rw,nosuid shared:9 - cgroup2 cgroup2 rw\n',
      'cg/user/job/memory.max': 'max\n', 'cg/user/job/memory.current': f'{10 * MIB}\n',
      'cg/user/memory.max': f'{500 * MIB}\n', 'cg/user/memory.current': f'{400 * MIB}\n', 'cg/user/memory.stat': f'inactive_file {MIB}\nactive_file 0\n'}
INSIDE = {**V2, 'proc/self/cgroup': '0::/\n', 'proc/self/mountinfo': '35 31 0:32 /docker/7 /cg rw - cgroup2 cgroup rw\n',
          'cg/memory.max': f'{64 * MIB}\n', 'cg/memory.current': f'{60 * MIB}\n'}


BOTH = {**V2, 'proc/self/cgroup': '4:memory:/lab/pi1\n1:name=systemd:/init\n0::/user/job\n'}             # version 2 beside groups of version 1


@pytest.mark.parametrize('files, free', [(V1, 550), (V2, 101), (BOTH, 101), (INSIDE, 4), ({'proc/meminfo': MEMINFO}, 4000)])
def test_the_tightest_group_counts(tmp_path, files, free):
    root = tree(tmp_path, files)
    assert min([*groups_free(root), host_free(root)]) == free * MIB
    assert available(root) == pytest.approx(free * MIB * (1 - MARGIN), abs=1)


@pytest.mark.parametrize('base, files, share', [
    (V1, {'cg/cpu/cpu.cfs_quota_us': '-1\n', 'cg/cpu/cpu.cfs_period_us': '100000\n'}, None),
    ({**V1, 'proc/self/cgroup': '1:cpu,cpuacct:/lab/pi1\n'}, {'cg/cpu/lab/pi1/cpu.cfs_quota_us': '1650\n', 'cg/cpu/lab/pi1/cpu.cfs_period_us': '5000\n'}, .33),
    (V2, {'cg/user/job/cpu.max': 'max 100000\n', 'cg/user/cpu.max': '150000 100000\n'}, 1.5), (V2, {}, None)])
def test_a_share_of_the_processors(tmp_path, base, files, share):
    assert processors(tree(tmp_path, {**base, **files})) == share


def test_where_nothing_is_told_nothing_is_known(tmp_path):
    assert available(tmp_path) is None and available() > 0 and processors(tmp_path) is None


def test_resident_memory_and_its_peak():
    before = resident()
    array = np.ones(16 * MIB)
    assert resident() - before > 120 * MIB and peak() > resident() - MIB                # the kernel counts in batches
    high = peak()
    del array
    trim()
    assert resident() - before < 8 * MIB and peak() > high - MIB
    forget_peak()
    assert peak() < high - 100 * MIB


SMAPS = '''7f0000000000-7f0000100000 r--p 00000000 fe:00 5 /lib/libx.so
Rss:   100 kB
Anonymous:             0 kB
7f0000100000-7f0000300000 r-xp 00100000 fe:00 5 /lib/libx.so
Anonymous:             0 kB
7f0000300000-7f0000400000 r--p 00300000 fe:00 5 /lib/libx.so
Anonymous:             8 kB
7f0000400000-7f0000500000 rw-p 00400000 fe:00 5 /lib/libx.so
Anonymous:             0 kB
7f0000500000-7f0000600000 r-xp 00000000 fe:00 6 /lib/liby.so.3
Anonymous:             0 kB
7f0000600000-7f0000700000 r--p 00000000 fe:00 6 /data.npy
Anonymous:             0 kB
'''


def test_of_libraries_only_what_was_never_written_is_left():
    assert unwritten(SMAPS) == [(0x7f0000000000, 0x7f0000100000), (0x7f0000100000, 0x7f0000300000), (0x7f0000500000, 0x7f0000600000)]


def test_a_library_that_was_left_works_again():
    import numba
    assert numba.njit(lambda x: x + 1)(1) == 2
    before = resident()
    trim()
    assert before - resident() > 8 * MIB
    assert numba.njit(lambda x: x + 2)(1) == 3
