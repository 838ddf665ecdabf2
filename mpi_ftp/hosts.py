"""Names of the machines that ranks run on. Knows no MPI."""
import socket
from contextlib import suppress


def this_machine():
    """(host name, boot) of this machine. The second tells machines apart that have one name, as boards fresh from their image do; '' where Linux does not say."""
    boot = ''
    with suppress(OSError):
        with open('/proc/sys/kernel/random/boot_id') as file:
            boot = file.read().strip()
    return socket.gethostname(), boot


def host_names(machines):
    """[name of its host] by rank, from what `this_machine` says there. Different machines of one name are numbered: pi#1, pi#2."""
    alike = {}
    for machine in dict.fromkeys(machines):
        alike.setdefault(machine[0], []).append(machine)
    return [name if len(alike[name]) == 1 else f'{name}#{alike[name].index((name, boot)) + 1}' for name, boot in machines]
