"""Interrupts a core every half millisecond: `python jobs/metronome.py CORE`, for emulated hosts (jobs/emulate.sh).

Linux looks at the ticks of its clock, every 4 ms at 250 Hz, whether a host has used up its share of 5 ms: it runs for 4 ms and then stands still for 8, which
no slow board does, and whoever waits for six such hosts waits for that. At every interruption Linux looks as well. Costs less than 1 % of the core.
"""
import ctypes
import os
import sys

PAUSE = 500_000             # nanoseconds
MONOTONIC = 1


class Timespec(ctypes.Structure):
    _fields_ = [('seconds', ctypes.c_long), ('nanoseconds', ctypes.c_long)]


def main(core):
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))          # comes first, so that whoever runs is interrupted
    sleep, pause = ctypes.CDLL(None).clock_nanosleep, ctypes.byref(Timespec(0, PAUSE))
    while True:
        sleep(MONOTONIC, 0, pause, None)


main(int(sys.argv[1]))
