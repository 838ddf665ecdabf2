"""What became of named plans that took turns: rows with predicted beside measured, a table, and a sentence on how far 'auto' is from the best."""
from dataclasses import dataclass, fields
from statistics import median, quantiles

from .contest import Entry, Figures
from .plan import Plan
from .plan_table import brief

AUTO = 'auto'


@dataclass(frozen=True)
class PlanRow:
    """A named plan on all ranks and its Figures, or `reason`: why there is no such plan.

    ratio: to the plan `auto`, the median over turns, each beside auto's of the same round, so that a machine that slows down does not favour one;
    low, high: half of the rounds lie between. same: the name of the plan that it is equal to and was measured with.
    """
    batch: int
    ranks: int
    name: str
    plan: Plan = None
    figures: Figures = None
    ratio: float = None
    low: float = None
    high: float = None
    same: str = ''
    reason: str = ''

    @property
    def seconds(self):
        return self.figures.seconds

    @property
    def rounds(self):
        return len(self.figures.rounds)

    @property
    def predicted(self):
        return self.plan.predicted['seconds']

    def to_json(self):
        """Flat; bytes: of the fullest rank in training, predicted; plan: its groups in a line. None where there is no such plan."""
        found = self.figures.to_json() if self.figures else dict.fromkeys(field.name for field in fields(Figures))
        predicted = self.plan.predicted if self.plan else {}
        return {'batch': self.batch, 'ranks': self.ranks, 'name': self.name, **found, 'predicted': predicted.get('seconds'), 'bytes': predicted.get('bytes'),
                'ratio': self.ratio, 'low': self.low, 'high': self.high, 'plan': brief(self.plan) if self.plan else '', 'same': self.same, 'reason': self.reason}


def plan_rows(plans, figures):
    """PlanRows of one batch. plans: {name: Plan or why there is none}, 'auto' among them; figures: {Entry: Figures}."""
    rows, first, auto = [], {}, plans[AUTO]
    for name, plan in plans.items():
        if isinstance(plan, str):
            rows.append(PlanRow(auto.batch, auto.ranks, name, reason=plan))
            continue
        found, like = figures[Entry(plan)], first.setdefault(plan, name)
        ratios = [mine / other for mine, other in zip(found.rounds, figures[Entry(auto)].rounds)]
        low, _, high = quantiles(ratios, n=4, method='inclusive') if len(ratios) > 1 else ratios * 3
        rows.append(PlanRow(auto.batch, auto.ranks, name, plan, found, median(ratios), low, high, like if like != name else ''))
    return rows


def finalists(plans, figures, count):
    """The entries of 'auto' and of the best others, `count` in all. plans, figures: as for plan_rows."""
    rows = sorted((row for row in plan_rows(plans, figures) if not row.reason), key=lambda row: (row.name != AUTO, row.ratio))
    return list(dict.fromkeys(Entry(plans[row.name]) for row in rows))[:count]


def verdict(rows):
    """One sentence on the rows of one batch: the plan that is the best by measurement, of those that went on to the end, and how much longer 'auto' takes."""
    exist = [row for row in rows if not row.reason]
    auto = next(row for row in exist if row.name == AUTO)
    others = [row for row in exist if own_name(row) != own_name(auto) and row.rounds == auto.rounds]
    begin = f'batch {auto.batch}, {auto.ranks} rank{"s" * (auto.ranks > 1)}: of {len(set(map(own_name, exist)))} plans '
    best = min(others, key=lambda row: row.ratio, default=auto)
    if best.ratio >= 1:
        return begin + 'auto is the best by measurement' + (f'; the next, {best.name!r}, takes {percent(best.ratio)} longer.' if others else '.')
    return (begin + f'{best.name!r} is the best by measurement ({1e3 * best.seconds:.1f} ms); auto takes {percent(1 / best.ratio)} longer '
            f'({percent(1 / best.high)} to {percent(1 / best.low)} in half of {best.rounds} rounds).')


def own_name(row):
    """The name under which a plan was measured."""
    return row.same or row.name


def percent(ratio):
    return f'{100 * (ratio - 1):.1f} %'


def plan_table(rows, link):
    """A rich table of PlanRows. link: (seconds, bytes a second)."""
    from rich.table import Table
    table = Table(title=f'plans taking turns; links {link[1] * 8e-6:.0f} Mbit/s, {1e6 * link[0]:.0f} us', box=None)
    table.add_column('batch', justify='right')
    table.add_column('plan', no_wrap=True)
    for name in ('ms', 'predicted', 'error', 'to auto', 'half the rounds', 'rounds', 'MB halos', 'MB sums', 'wait halos', 'norms', 'sums', 'MiB'):
        table.add_column(name, justify='right', no_wrap=True)
    table.add_column('', overflow='fold')
    for number, row in enumerate(rows):
        last = number + 1 == len(rows) or rows[number + 1].batch != row.batch
        cells = [''] * 12
        if not row.reason:
            found = row.figures
            cells = [f'{1e3 * row.seconds:.1f}', f'{1e3 * row.predicted:.1f}', f'{100 * (row.predicted / row.seconds - 1):+.0f} %', f'{row.ratio:.3f}',
                     f'{row.low:.3f}–{row.high:.3f}', str(row.rounds), *(f'{nbytes / 1e6:.2f}' for nbytes in found.sent),
                     *(f'{1e3 * seconds:.1f}' for seconds in (found.halos, found.norms, found.sums)), f'{row.plan.predicted["bytes"] / (1 << 20):.0f}']
        table.add_row(str(row.batch), row.name, *cells, row.reason or row.same and f'the same as {row.same}', end_section=last)
    return table
