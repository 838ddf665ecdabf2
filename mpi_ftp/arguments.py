"""Types for argparse that several verbs share: functions of a word of the command line. Knows no verb."""
import argparse
import re
from contextlib import suppress


def wxh(text):
    """(w, h) of "WxH"."""
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if not match:
        raise argparse.ArgumentTypeError(f'"{text}": expected WIDTHxHEIGHT, such as 416x416')
    return int(match[1]), int(match[2])


def numbers(text):
    """[int] of "N,N,…", each at least 1."""
    if not re.fullmatch(r'0*[1-9]\d*(,0*[1-9]\d*)*', text):
        raise argparse.ArgumentTypeError(f'{text}: expected whole numbers of at least 1 with commas between')
    return [int(part) for part in text.split(',')]


def whole(least=0):
    """A type of whole numbers, not below `least`."""
    def convert(text):
        with suppress(ValueError):
            if int(text) >= least:
                return int(text)
        raise argparse.ArgumentTypeError(f'{text}: expected a whole number of at least {least}')
    return convert


def duration(text):
    """A time above 0."""
    with suppress(ValueError):
        if 0 < float(text) < float('inf'):
            return float(text)
    raise argparse.ArgumentTypeError(f'{text}: expected seconds, a number above 0')


def fraction(text):
    """A number from 0 to 1."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f'expected a number from 0 to 1, not {text!r}')
