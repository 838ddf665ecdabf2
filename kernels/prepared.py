"""Calls whose arguments are looked at once: a step of training makes each of them with the same views again and again."""
import functools


def prepared(make):
    """Decorator of a function that checks its arguments and returns the work to be done with them. Called, it does that work;
    `ready` with the same arguments only returns it, to be done whenever and as often as one likes. The work holds on to the arrays."""
    @functools.wraps(make)
    def at_once(*arguments, **options):
        make(*arguments, **options)()
    at_once.ready = make
    return at_once


def nothing():
    """There is no work to be done."""


def one_by_one(works):
    """All of them."""
    for work in works:
        work()
