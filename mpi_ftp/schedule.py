"""The learning rate of every iteration, by the policies of Darknet's get_current_rate (network.c)."""
import math
from dataclasses import dataclass

POLICIES = ('constant', 'step', 'steps', 'exp', 'poly', 'sigmoid')


@dataclass(frozen=True)
class Schedule:
    """`schedule(batch)` is the rate of a batch; Darknet counts the batch at hand as seen, so the first one is number 1."""
    policy: str
    rate: float
    burn_in: int = 0
    power: float = 4.0
    scale: float = 1.0
    step: int = 1
    gamma: float = 1.0
    steps: tuple = ()
    scales: tuple = ()
    max_batches: int = 0

    def __call__(self, batch):
        if batch < self.burn_in:
            return self.rate * (batch / self.burn_in) ** self.power
        if self.policy == 'step':
            return self.rate * self.scale ** (batch // self.step)
        if self.policy == 'steps':
            # the first step still ahead ends it, also where steps are not in order; steps=-1 has passed from the start
            rate = self.rate
            for step, scale in zip(self.steps, self.scales):
                if step > batch:
                    break
                rate *= scale
            return rate
        if self.policy == 'exp':
            return self.rate * self.gamma ** batch
        if self.policy == 'poly':
            return self.rate * max(0.0, 1 - batch / self.max_batches) ** self.power
        if self.policy == 'sigmoid':
            return self.rate / (1 + math.exp(min(700.0, self.gamma * (batch - self.step))))
        return self.rate


def from_net(net, rate=None, max_batches=None):
    """The Schedule of a [net] Section with Darknet's defaults; `rate` overrides its learning_rate.

    `max_batches` (the iterations of this run) is what policy=poly falls back to when [net] does not say. Raises CfgError.
    """
    policy = net.choice('policy', POLICIES + ('sig', 'random'), 'constant')
    if policy == 'random':
        raise net.error('policy', 'a random learning rate cannot be repeated and is not trained here; expected one of ' + ', '.join(POLICIES))
    policy = 'sigmoid' if policy == 'sig' else policy
    numbers = {}
    if policy == 'steps':
        steps, scales = net.ints('steps'), net.floats('scales')
        if len(steps) != len(scales):
            raise net.error('scales', f'expected {len(steps)} numbers, one for each of steps, found {len(scales)}')
        numbers = {'steps': steps, 'scales': scales}
    if policy in ('step', 'sigmoid'):
        numbers['step'] = net.int('step', 1, least=1)
    if policy == 'poly':
        numbers['max_batches'] = net.int('max_batches', max_batches or 0)
        if numbers['max_batches'] < 1:
            raise net.error('max_batches', 'policy=poly needs a whole number of at least 1')
    return Schedule(policy, net.float('learning_rate', .001) if rate is None else rate, net.int('burn_in', 0, least=0), net.float('power', 4.0),
                    net.float('scale', 1.0), gamma=net.float('gamma', 1.0), **numbers)
