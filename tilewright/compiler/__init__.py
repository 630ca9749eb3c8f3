"""From a Program to kernels: partition into kernels, a loop nest for each, a schedule, a target's code."""
