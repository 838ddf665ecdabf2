"""The verb `train`: the loop that reads as prose, and what surrounds it: resume, checkpoints, evaluation, signals."""
import gc

import numpy as np

from . import comm, schedule
from .augment import Options
from .cfg import ignored, read_cfg
from .convert_weights import open_weights
from .draw import plot_training
from .errors import Diverged
from .evaluate import evaluate
from .job import add_arguments, from_arguments
from .limits import trim
from .loss import summary
from .model import Model
from .plan_table import plan_table
from .planning import course_of, mini_batch, plan_again, plan_run
from .replan import Watch, move
from .runfolder import open_run
from .saving import WeightsSource, load_checkpoint, save_checkpoint, save_weights
from .screen import show
from .session import Feed, load_kernels, losses_of, read_headed, splits_of
from .watching import TIMES, Signals, Stopwatch, tell

COLUMNS = ('iteration', 'loss', 'seconds', 'rate', 'epoch', 'seen', *TIMES[1:], 'iou', 'class', 'objectness', 'any_objectness', 'recall50',
           'recall75', 'mAP50', 'mAP50_95', 'top1')
STATS = ('iou', 'class', 'objectness', 'any_objectness', 'recall50', 'recall75', 'truths', 'cells', 'dropped')

__all__ = ['add_arguments', 'run']


def run(args):
    job = from_arguments(args, required=('cfg', 'data'))
    world = comm.world(job.ranks)
    world.in_order = job.deterministic
    folder = open_run(job.run, job.resume, world.rank)
    with Trainer(world, job, folder) as trainer:
        trainer.train()


class Trainer:
    """A run on one rank: network, plan, model, stream of pictures, and where it stands."""

    def __init__(self, world, job, folder):
        self.world, self.job, self.folder = world, job, folder
        self.signals, self.dtype, self.told_dropped, self.stop = Signals(), np.dtype(job.dtype), False, False          # stop: asked by a signal on any rank
        self.network = network = read_headed(job.cfg, 'train for')
        self.losses, self.cfg = losses_of(network), job.cfg.read_text(encoding='utf-8')          # the file may change or go before the run ends
        self.batch, self.mini = mini_batch(network, job)
        schedule.from_net(network.net, job.learning_rate, self.iterations(samples=1))
        splits = splits_of(world, job, job.split, network)          # what is wrong with files is told before seconds are spent
        if job.weights and world.rank == 0 and not folder.resumed:
            open_weights(job.weights, network)
        self.momentum = network.net.float('momentum', .9) if job.momentum is None else job.momentum
        self.decay = network.net.float('decay', .0001) if job.decay is None else job.decay
        load_kernels(world, job, self.losses)
        self.course = course_of(network, job, world.broadcast(splits))
        self.plan, self.machine = plan_run(world, network, self.mini, job, self.course)
        folder.write('job.toml', job.toml())
        self.tell_plan()
        if job.dtype == 'float64':
            folder.log('float64 runs the slow reference kernels: steps take many times as long as predicted, which is for float32')
        if unused := ignored(read_cfg(job.cfg)):
            folder.log('without effect here: ' + ', '.join(text.split(': ', 1)[1] for text in dict.fromkeys(unused)))
        if not self.course.evaluates:
            folder.log('there is no evaluation: ' + ('val_split = none' if job.val_split else f'{job.data} has no split "val"'))
        self.model, self.watch = self.build(), Watch()
        if held := self.model.parameters.held_by_ranks(world):
            folder.log(held)
        self.iteration, self.seen, self.state = self.begin()
        self.feed = self.stream()
        self.total = self.iterations(self.feed.samples)
        self.rate = schedule.from_net(network.net, job.learning_rate, self.total)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.feed.close()

    def build(self):
        """The Model of the plan."""
        job = self.job
        return Model(self.network, self.plan, self.world, self.dtype, frozen=job.batch_norm == 'frozen', overlap=job.overlap, losses=self.losses,
                     deterministic=job.deterministic, halos=job.halos, gradients=job.gradients)

    def stream(self):
        """The Feed of the model's tiles, from where the run stands."""
        job, network = self.job, self.network
        last = network.heads[-1]
        options = Options.from_cfg(network.net.options, last.section.options if last.kind != 'softmax' else None, job.augment)
        return Feed(self.world, job.data, job.split, network.tensor_shape(-1, self.mini), self.model.picture, job.reader, options=options,
                    seed=job.seed, state=self.state, dtype=self.dtype, ahead=self.plan.predicted.get('ahead', 2))

    def tell_plan(self):
        """The plan as a file and as a table."""
        self.folder.write_json('plan.json', self.plan.to_json())
        if self.world.rank == 0:
            self.show(plan_table(self.network, self.plan))

    def show(self, table):
        """A rich table on the terminal and in the log."""
        self.folder.note(show(table, width=140))

    def begin(self):
        """Weights to begin with: the checkpoint's, a file's, or random ones. Returns (iteration, pictures seen, place in the data)."""
        parameters = self.model.parameters
        parameters.initialise(self.job.seed)
        if self.world.broadcast(self.folder.resumed):
            meta = load_checkpoint(self.folder.checkpoint, self.world, parameters)
            self.folder.log(f'going on after iteration {meta["iteration"]}')
            if meta['seed'] != self.job.seed:
                self.folder.log(f'the seed was {meta["seed"]} and is {self.job.seed} now: pictures come in another order')
            return meta['iteration'], meta['seen'], tuple(meta['loader'])
        if self.job.weights:
            weights = WeightsSource(self.job.weights, self.world, self.network)
            weights.fill(parameters)
            before = f'; the {weights.seen} pictures they have seen count no more, as after Darknet\'s -clear' if weights.seen else ''
            self.folder.log(f'{self.job.weights}: weights of {len(weights.covered)} layers{before}')
        return 0, 0, (0, 0)

    def iterations(self, samples):
        job, net = self.job, self.network.net
        return max(1, round(job.epochs * samples / self.batch)) if job.epochs is not None else job.iterations or net.int('max_batches', least=1)

    def train(self):
        folder, job = self.folder, self.job
        folder.begin_metrics(COLUMNS, self.iteration)
        times = []
        with folder.progress(self.total, self.iteration) as progress:
            while self.iteration < self.total and not self.stop:
                self.iteration += 1
                epoch = self.state[0]
                row = self.step()
                self.watch.step(row)
                times.append([row[name] for name in TIMES])
                if job.val_every and self.iteration % job.val_every == 0 and self.iteration < self.total:
                    row.update(self.evaluate(progress))
                folder.row(**row)
                progress.step(self.iteration, f'loss {row["loss"]:.4f}  rate {row["rate"]:.3g}  {row["seconds"]:.3f} s')
                if self.iteration % job.checkpoint_every == 0 and self.iteration < self.total and not self.stop:
                    self.save()
                    self.draw()
                if self.state[0] > epoch and job.replan and self.world.size > 1 and self.iteration < self.total:
                    self.replan()
            self.feed.close()                                       # what it has prepared is room to draw in
            self.save()
            finished = self.iteration >= self.total and not (self.stop and self.course.evaluates)       # who asks to stop may not wait so long
            if finished:                                            # once nothing can be lost any more
                folder.begin_metrics(COLUMNS, self.iteration, self.evaluate(progress))
        self.draw()
        for line in tell(times, self.plan, self.batch // self.mini, self.world):
            folder.log(line)
        if finished:
            folder.finish(f'{self.total} iterations')
        else:
            folder.log(f'stopped by signal after iteration {self.iteration} of {self.total}; --resume goes on')
            folder.close()

    def step(self):
        """One iteration: forward, loss, backward on each piece of the batch; sums over ranks; one step of the optimizer."""
        stopwatch, model, pieces, value, stats = Stopwatch(), self.model, self.batch // self.mini, 0.0, {}
        for piece in range(pieces):
            tile, truths, _, _, self.state = stopwatch.fetch(self.feed.next)
            self.seen += self.mini
            value += model.forward(tile, truths, self.seen, key=(self.job.seed * 1000003 + self.iteration) * pieces + piece)
            for name, number in model.stats.items():
                stats[name] = stats.get(name, 0.0) + number
            model.backward(reduce=piece == pieces - 1)
        stopwatch.computed()
        # one sum tells all ranks the loss, its statistics, and whether any of them was asked to stop
        sums = self.world.sum(np.array([value] + [stats.get(name, 0.0) for name in STATS] + [self.signals.asked]), meanwhile=model.poll)
        self.stop = sums[-1] > 0
        stopwatch.summed(model.reduction.take_times()[0])
        loss, rate = sums[0] / self.batch, self.rate(self.iteration)
        if not np.isfinite(loss):
            model.reduction.wait()
            raise Diverged(f'the loss is {loss} at iteration {self.iteration}: {self.blame(tile, truths)}; try a smaller learning rate than {rate:g}')
        model.optimizer.step(rate / self.batch, self.momentum, self.decay * self.batch)
        row = {'iteration': self.iteration, 'loss': float(loss), 'rate': rate, 'epoch': self.seen / self.feed.samples, 'seen': self.seen, **stopwatch.read()}
        self.tell_dropped(sums[-2])
        means = summary(dict(zip(STATS, sums[1:-1])))
        row.update({name: means[name] for name in COLUMNS if name in means and not np.isnan(means[name])})
        return row

    def tell_dropped(self, count):
        """Say once that pictures hold more boxes than a head looks at, as in Darknet."""
        if count and not self.told_dropped:
            self.told_dropped = True
            self.folder.log(f'iteration {self.iteration}: {count:.0f} boxes were left out, a head looks at `max` of a picture (30 for [region], 90 for [yolo])')

    def blame(self, tile, truths):
        """The first layer whose output is not finite."""
        index = self.model.first_not_finite(tile, truths)
        index = int(self.world.maximum(-index)) * -1
        return f'the first output that is not finite is that of {self.network.layers[index].name}' if index < len(self.network) else \
            'all layers are finite, the loss itself is not'

    def evaluate(self, progress):
        """Metrics of the validation split with the weights at hand; empty where the run has none."""
        if not self.course.evaluates:
            return {}
        self.model.rest()
        model = Model(self.network, self.plan, self.world, self.dtype, training=False, losses=self.losses, parameters=self.model.parameters)
        split = self.job.val_split or 'val'
        result = evaluate(self.world, model, self.job.data, split, self.job.reader, lambda done: progress.within(self.iteration, f'evaluated {done:.0%} of {split}'))
        model.arena.release()
        trim()
        if self.world.rank:
            return {}
        self.show(result.table(f'{split} after iteration {self.iteration}'))
        return {name: number for name, number in result.as_dict().items() if name in ('mAP50', 'mAP50_95', 'top1') and number is not None}

    def replan(self):
        """Go on under a new plan where ranks or links have become so much slower that it pays."""
        found = plan_again(self.world, self.network, self.mini, self.job, self.plan, self.machine, self.watch, self.course)
        if not found:
            return
        why, before, self.plan, self.machine = found
        self.folder.log(f'iteration {self.iteration}: {why}; a new plan takes {1e3 * self.plan.predicted["seconds"]:.1f} ms instead of {1e3 * before:.1f}')
        self.tell_plan()
        old = self.model
        old.rest()
        self.feed.close()
        self.model, self.watch = self.build(), Watch()
        move(self.world, old.parameters, self.model.parameters)
        del old
        gc.collect()                        # a model and its groups know each other
        self.feed = self.stream()

    def save(self):
        """Checkpoint and Darknet weights, each whole or not at all."""
        meta = {'iteration': self.iteration, 'seen': self.seen, 'loader': list(self.state), 'seed': self.job.seed, 'job': self.job.toml(),
                'plan': self.plan.to_json(), 'cfg': self.cfg}
        folder, parameters = self.folder, self.model.parameters
        self.model.rest()
        if self.world.maximum(not np.isfinite(sum(array.sum(dtype=float) for array in parameters.state()))):
            raise Diverged(f'weights are no longer finite after iteration {self.iteration}; the checkpoint before it, if any, stays: try a smaller learning rate')
        folder.settle()
        save_checkpoint(getattr(folder, 'checkpoint', None), self.world, parameters, meta)
        save_weights(getattr(folder, 'weights', None), self.world, parameters, self.seen)
        trim()

    def draw(self):
        """The curve so far."""
        if self.world.rank == 0 and self.iteration:
            plot_training(self.folder.path / 'training.png', self.folder.curve(), self.job.cfg.stem)
            trim()
        self.world.rest()
