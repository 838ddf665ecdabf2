"""What the program says when it refuses to go on: one sentence and a distinct exit code for each kind of cause."""
import difflib


class Refused(Exception):
    """A cause the user can mend. The message is one clear sentence; `exit_code` tells kinds apart in scripts."""
    exit_code = 1


class UsageError(Refused):
    """A command line that cannot be understood."""
    exit_code = 2


class CfgError(Refused):
    """A network .cfg that is wrong, or names a layer this program does not train."""
    exit_code = 3


class WeightsError(Refused):
    """A .weights or checkpoint file that does not fit the network."""
    exit_code = 4


class DataError(Refused):
    """A data set, picture or annotation that cannot be used."""
    exit_code = 5


class JobError(Refused):
    """A job file or option with an unknown key or a wrong value."""
    exit_code = 6


class PlanError(Refused):
    """A grid, grouping or rank count that does not make a plan."""
    exit_code = 7


class MemoryRefused(Refused):
    """No plan fits the memory budget."""
    exit_code = 8


class LauncherError(Refused):
    """MPI did not form the ranks that the launcher was asked for."""
    exit_code = 9


class Diverged(Refused):
    """The loss is no longer a finite number."""
    exit_code = 10


UNEXPECTED = 70      # exit code of an exception nobody foresaw (EX_SOFTWARE of sysexits.h)


def nearest(word, words):
    """', did you mean "x"?' for the closest of `words`, or '' when none is near."""
    close = difflib.get_close_matches(str(word), [str(w) for w in words], n=1)
    return f', did you mean "{close[0]}"?' if close else ''
