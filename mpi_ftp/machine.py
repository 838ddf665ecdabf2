"""The measured constants of a run's hosts and links: what the cost model knows of the world. A Machine goes to JSON and back (`--machine FILE`);
measuring.py makes one.
"""
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from .curves import Curve, class_of, find
from .errors import PlanError
from .files import replacing
from .machine_checks import check_machine
from .tables import against_ranks, by_ranks

DEFAULT_LINK = 60e-6, 117e6             # seconds, bytes a second: 1 Gbit/s Ethernet, assumed where no second host was there to measure
PRECISIONS = {'full': 1.0, 'half': 0.5}         # bytes that travel, of those of a tile
TABLES = 'sums', 'fewer', 'gathers', 'scatters', 'algorithms', 'sources'


@dataclass(frozen=True)
class Machine:
    """curves: times of layers, see curves.py. copy, add: seconds per byte; sgd: seconds per weight; call: seconds of a step's small Python acts; head: seconds of a loss per cell.

    host_link, net_link: (seconds, bytes a second) between ranks of one host and of two; message: seconds of each further message of a rank, 0
    where not measured; labour: of its processor for each byte that it sends and receives, as gradients are added; sums: ((bytes, seconds), …) over all ranks that measured, fewer: ((ranks, bytes, seconds), …) over the first of them;
    gathers, scatters: rows like these of all-gathers and reduce-scatters. hosts: host number of each rank; names: of the hosts that were
    measured, by number; speeds: seconds of each rank relative to the curves. base: bytes of a process before its model; peak: the most it took
    until then (to measure this); cores: of a host; threads: of a rank. strain: how many times longer computing takes when all ranks of this many
    compute at once, beyond what cores and speeds say; meeting: seconds that they lose each time they wait for each other, beyond the message's;
    picture: seconds to prepare a pixel of the input. note: where the figures come from.
    algorithms: rows for kernels.set_rates. signature: of what was measured, see measuring.signature; empty for figures that nobody measured.
    sources: ((constant, where it comes from), …) of such figures. halos, gradients: the part of their bytes that travels, of a job, see `sending`.
    """
    curves: tuple
    copy: float = 5e-11
    add: float = 5e-11
    sgd: float = 5e-10
    call: float = 2e-5
    head: float = 2e-6
    host_link: tuple = (2e-6, 5e9)
    net_link: tuple = DEFAULT_LINK
    message: float = 0.0
    labour: float = 0.0
    sums: tuple = ()
    fewer: tuple = ()
    gathers: tuple = ()
    scatters: tuple = ()
    hosts: tuple = (0,)
    names: tuple = ()
    speeds: tuple = (1.0,)
    strain: float = 1.0
    meeting: float = 0.0
    picture: float = 0.0
    base: int = 120 << 20
    peak: int = 0
    cores: int = 1
    threads: int = 1
    note: str = ''
    algorithms: tuple = ()
    signature: str = ''
    sources: tuple = ()
    halos: float = 1.0
    gradients: float = 1.0

    def curve(self, layer, pass_):
        """Seconds of a pass of a network's layer against output pixels, or None where the layer has no such pass."""
        has = layer.tensors if pass_ == 'backward_weights' else layer.two_phase or 'finish' not in pass_
        return find(self.curves, class_of(layer), pass_) if has else None

    def placed(self, ranks):
        """This machine with `ranks` ranks: those measured, else one to a host, the first ones as quick as measured and further ones typical."""
        if len(self.hosts) == ranks:
            return self
        fewer = self.fewer + tuple((len(self.hosts), *point) for point in self.sums) if len(set(self.hosts)) == len(self.hosts) else ()
        return replace(self, hosts=tuple(range(ranks)), speeds=(self.speeds + (median(self.speeds),) * ranks)[:ranks], sums=(), fewer=fewer, strain=1.0, meeting=0.0)

    def among(self, ranks):
        """This machine with these of its ranks alone at work, in that order; what sums over all of them took is known of so many."""
        if tuple(ranks) == tuple(range(len(self.hosts))):
            return self
        fewer = self.fewer + tuple((len(self.hosts), *point) for point in self.sums)
        return replace(self, hosts=tuple(self.hosts[rank] for rank in ranks), speeds=tuple(self.speeds[rank % len(self.speeds)] for rank in ranks), sums=(), fewer=fewer,
                       strain=self.strain if len(ranks) > 1 else 1.0)

    def sending(self, halos, gradients):
        """This machine for a job that sends halos and gradients in 'full' or 'half' precision."""
        return replace(self, halos=PRECISIONS[halos], gradients=PRECISIONS[gradients])

    def host(self, rank):
        """The name of a rank's host, or its number where names are not known."""
        number = self.hosts[rank]
        return self.names[number] if number < len(self.names) else f'host {number}'

    @cached_property
    def slowdown(self):
        """How much slower a rank computes beside the others of its host than alone: by cores that are shared, and by the strain of all else."""
        return max(1.0, self.crowd * self.threads / self.cores) * self.strain

    @cached_property
    def crowd(self):
        """Ranks on the fullest host."""
        return max(self.hosts.count(host) for host in set(self.hosts))

    @cached_property
    def link(self):
        """(latency, bytes a second) of the slowest link in use; ranks of one host share its way out."""
        if len(set(self.hosts)) == 1:
            return self.host_link
        return self.net_link[0], self.net_link[1] / self.crowd

    @property
    def overhead(self):
        """Seconds of each further message."""
        return self.message or self.host_link[0]

    @cached_property
    def sum_tables(self):
        """{ranks: ((bytes, seconds), …)} of all sums that were measured."""
        return {**by_ranks(self.fewer), **({len(self.hosts): self.sums} if self.sums else {})}

    def sum_seconds(self, nbytes, ranks=None):
        """Seconds to add an array of so many bytes over ranks (default all): as measured for them or for fewer and more, else by a tree or a ring."""
        ranks = len(self.hosts) if ranks is None else ranks
        if ranks <= 1 or not nbytes:
            return 0.0
        measured = against_ranks(self.sum_tables, ranks, nbytes)
        if measured is not None:
            return measured
        latency, bandwidth = self.link
        tree = 2 * (ranks - 1).bit_length() * (latency + nbytes / bandwidth)
        ring = 2 * (ranks - 1) * (latency + nbytes / ranks / bandwidth)
        return min(tree, ring)

    def to_json(self):
        return {**{name: getattr(self, name) for name in Machine.__dataclass_fields__}, 'curves': [curve.to_json() for curve in self.curves]}

    @staticmethod
    def from_json(record):
        """Raises PlanError for a key that is unknown, missing or of a wrong value."""
        check_machine(record)
        tuples = {name: tuple(map(tuple, value)) if name in TABLES else tuple(value) for name, value in record.items()
                  if isinstance(value, (list, tuple)) and name != 'curves'}
        return Machine(**{**record, **tuples, 'curves': tuple(map(Curve.from_json, record['curves']))})


def write_machine(path, machine):
    """Write a Machine as JSON, whole or not at all. Raises JobError where nothing can be written."""
    import json
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(machine.to_json(), indent=1))


def read_machine(path):
    """The Machine of a JSON file. Raises PlanError."""
    import json
    from pathlib import Path
    try:
        return Machine.from_json(json.loads(Path(path).read_text()))
    except OSError as error:
        raise PlanError(f'cannot read the machine file {path}: {error.strerror}') from None
    except ValueError as error:
        raise PlanError(f'{path} is not a machine file: {error}') from None
    except PlanError as error:
        raise PlanError(f'the machine file {path}: {error}') from None
