"""Arithmetic on arrays in the blocked layout: convolutions, norms, pools and copies."""
