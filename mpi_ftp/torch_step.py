"""PyTorch's side of `mpi-ftp bench`: a program of its own, run by an interpreter that has PyTorch, that knows nothing of this package.

Its first line of input is a JSON description: layers, side, batch, layout, threads. It answers `ready`, then to every line `n` with a JSON list of
the seconds of n training steps. Activations are in place, the gradient of the output is given: no loss is computed.
"""
import json
import sys
import time


def main():
    asked = json.loads(sys.stdin.readline())
    import torch
    torch.set_num_threads(asked['threads'])
    form = torch.channels_last if asked['layout'] == 'NHWC' else torch.contiguous_format
    model = network(torch, asked['layers'], asked['layout'] != 'plain').to(memory_format=form)
    x = torch.rand(asked['batch'], asked['channels'], asked['height'], asked['width']).contiguous(memory_format=form)
    gradient = torch.randn_like(model(x)) / 1000
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=.9, weight_decay=5e-4)
    # of one thread the processor's time, which others on the machine do not lengthen
    clock = time.process_time if asked['threads'] == 1 else time.perf_counter

    def step():
        begun = clock()
        optimizer.zero_grad(set_to_none=True)
        model(x).backward(gradient)
        optimizer.step()
        return clock() - begun

    step()
    print('ready', flush=True)
    for line in sys.stdin:
        print(json.dumps([step() for _ in range(int(line))]), flush=True)


def network(torch, layers, tuned):
    """tuned: 1 x 1 filters get dilation 2, the same mathematics, which leads PyTorch to oneDNN instead of a slower path of its own."""
    nn, made = torch.nn, []
    activations = {'leaky': lambda: nn.LeakyReLU(.1, inplace=True), 'relu': lambda: nn.ReLU(inplace=True), 'logistic': nn.Sigmoid,
                   'mish': lambda: nn.Mish(inplace=True), 'swish': lambda: nn.SiLU(inplace=True)}
    for layer in layers:
        if layer['kind'] == 'maxpool':
            made.append(nn.MaxPool2d(layer['size'], layer['stride']))
            continue
        pointwise = tuned and layer['size'] == 1 and layer['stride'] == 1
        made.append(nn.Conv2d(layer['inputs'], layer['filters'], layer['size'], layer['stride'], layer['pad'], 2 if pointwise else layer['dilation'],
                              layer['groups'], bias=not layer['normalize']))
        if layer['normalize']:
            made.append(nn.BatchNorm2d(layer['filters'], momentum=.01))
        if layer['activation'] != 'linear':
            made.append(activations[layer['activation']]())
    return nn.Sequential(*made)


if __name__ == '__main__':
    main()
