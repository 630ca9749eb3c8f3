"""Benchmarks: generated kernels beside torch's, and beside the machine's own limits. See README.md."""
