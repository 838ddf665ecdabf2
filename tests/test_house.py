"""The house: every module stands on a floor and imports only from its own floor or those below, never in a circle."""
import ast
import configparser
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = [set(floor.split()) for floor in (
    '__init__ errors arguments kinds files chance torch_step limits',
    'region',
    'tile',
    'cfg layers',
    'network',
    'allreduce reduction',
    'geometry instalments subtiles step_buffers memory curves buffers parameters optimizer algorithm_times layer_times tables machine_checks machine extents layer_cost part_cost message_cost cost plan ways shares space dynamic refine footprint budget search',
    'launcher hosts waiting alone small_sum comm mute exchange link_times collective_times measuring',
    'tape backward group parted model',
    'boxes_math boxes loss_math loss_checks region_loss yolo_loss softmax_loss loss metrics draw augment picture_checks pictures loader sources voc yolo_lists coco '
    'weights schedule checkpoint screen runfolder telling job',
    'watching planning plan_table profile_table plan_picture compare manual contest rivals rivals_picture scaling_picture convert_weights session saving replan evaluate inference',
    'train val detect forward show profiling accuracy convert anchors warmup bench scaling',
    '__main__',
)]
FLOOR = {module: number for number, floor in enumerate(FLOORS) for module in floor}
MODULES = {path.relative_to(ROOT / 'mpi_ftp').with_suffix('').parts: path for path in (ROOT / 'mpi_ftp').rglob('*.py')}


def imports(path, package):
    """Dotted names that a file imports; relative ones are resolved against `package`, a tuple of names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[:len(package) - node.level + 1]) + '.' if node.level else ''
            for alias in node.names:
                yield f'{base}{node.module or ""}.{alias.name}'.replace('..', '.')


def modules_read(parts):
    """Modules of mpi_ftp (kernels apart) that a module imports, by the name that stands in FLOORS."""
    path = MODULES[parts]
    for name in imports(path, ('mpi_ftp', *parts[:-1])):
        first, *rest = name.split('.')
        if first == 'mpi_ftp' and rest and rest[0] != 'kernels':
            yield rest[0] if (rest[0],) in MODULES or (rest[0], '__init__') in MODULES else '__init__'


def test_every_module_has_a_floor():
    unknown = {parts[0] for parts in MODULES} - set(FLOOR)
    assert not unknown, f'say in FLOORS on which floor these stand: {sorted(unknown)}'


def test_no_import_points_upwards():
    upwards = [f'{"/".join(parts)} imports {name}' for parts in MODULES for name in modules_read(parts)
               if FLOOR.get(name, 99) > FLOOR.get(parts[0], 0)]
    assert not upwards


def test_no_circles():
    graph = {}
    for parts in MODULES:
        if len(parts) == 1:
            graph.setdefault(parts[0], set()).update(set(modules_read(parts)) - {parts[0]})

    def visit(module, way):
        assert module not in way, ' -> '.join([*way[way.index(module):], module])
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, [*way, module])
            done.add(module)
    done = set()
    for module in graph:
        visit(module, [])


def test_one_door_to_mpi():
    doors = [path.name for parts, path in MODULES.items() if any(name.split('.')[0] == 'mpi4py' for name in imports(path, ('mpi_ftp',)))]
    assert doors == ['comm.py']


def test_plans_know_no_mpi():
    assert not [parts for parts in MODULES if FLOOR.get(parts[0], 0) <= FLOOR['plan'] and {'comm', 'exchange'} & set(modules_read(parts))]


def test_kernels_are_arithmetic():
    for path in set((ROOT / 'kernels').rglob('*.py')) - {ROOT / 'kernels' / name for name in ('bench.py', '__main__.py')}:      # they measure and draw
        package = ('mpi_ftp', 'kernels', *path.relative_to(ROOT / 'kernels').parts[:-1])
        foreign = {name for name in imports(path, package) if name.split('.')[0] not in {'numpy', 'numba', 'llvmlite'} | sys.stdlib_module_names
                   and not name.startswith('mpi_ftp.kernels')}
        assert not foreign, f'{path.name} imports {sorted(foreign)}'
        names = {getattr(node, 'id', None) or getattr(node, 'arg', None) or getattr(node, 'attr', None) for node in ast.walk(ast.parse(path.read_text()))}
        assert not {'rank', 'ranks', 'comm'} & names, f'{path.name} computes with ranks'


def test_all_packages_are_installed():
    options = configparser.ConfigParser()
    options.read(ROOT / 'setup.cfg')
    packages = {'.'.join(('mpi_ftp', *path.relative_to(ROOT / 'mpi_ftp').parts[:-1])) for path in (ROOT / 'mpi_ftp').rglob('*.py')}
    assert set(options['options']['packages'].split(', ')) == packages | {'mpi_ftp.kernels'}
