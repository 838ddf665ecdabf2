"""The shapes of a Darknet .cfg's convolutions, for the benchmark. Knows just what changes a shape; `mpi_ftp.network` knows cfgs."""


def sections(text):
    """[(name, {key: value})] of a .cfg."""
    found = []
    for line in text.splitlines():
        line = line.split('#')[0].split(';')[0].strip()
        if line.startswith('['):
            found.append((line.strip('[]'), {}))
        elif '=' in line:
            key, value = line.split('=', 1)
            found[-1][1][key.strip()] = value.strip()
    return found


def convolutions(text, side=None):
    """[(channels, filters, size, stride, rows, columns)] of ungrouped convolutions, for a picture of side x side pixels or
    of the size in the file. Raises ValueError at a kind of layer whose shape it does not know."""
    (_, net), *layers = sections(text)
    c, h, w = (int(net[key]) for key in ('channels', 'height', 'width'))
    h, w = (side, side) if side else (h, w)
    shapes, outputs = [], []
    for index, (kind, options) in enumerate(layers):
        def number(key, default):
            return int(options.get(key, default))
        size, stride = number('size', 1), number('stride', 1)
        if kind == 'convolutional':
            pad = size // 2 if number('pad', 0) else number('padding', 0)
            h, w = ((x + 2 * pad - size) // stride + 1 for x in (h, w))
            if number('groups', 1) == 1:
                shapes.append((c, number('filters', 1), size, stride, h, w))
            c = number('filters', 1)
        elif kind == 'maxpool':
            pad = number('padding', size - 1)
            h, w = ((x + pad - size) // stride + 1 for x in (h, w))
        elif kind == 'upsample':
            h, w = h * number('stride', 2), w * number('stride', 2)
        elif kind == 'reorg':
            c, h, w = c * stride * stride, h // stride, w // stride
        elif kind == 'route':
            sources = [int(x) for x in options['layers'].split(',')]
            parts = [outputs[x if x >= 0 else index + x] for x in sources]
            c, (_, h, w) = sum(part[0] for part in parts) // number('groups', 1), parts[0]
        elif kind not in ('shortcut', 'dropout', 'region', 'yolo', 'softmax', 'cost'):
            raise ValueError(f'layer {index} is [{kind}]: its shape is unknown to the benchmark')
        outputs.append((c, h, w))
    return shapes
