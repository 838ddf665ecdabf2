"""How many threads a kernel may use."""
count = 1


def set_threads(threads):
    """Use so many threads inside this process (at least 1)."""
    global count
    count = max(1, int(threads))
