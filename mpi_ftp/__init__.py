"""Training of convolutional networks over MPI ranks that each own a spatial tile."""
__version__ = '0.1.0'
