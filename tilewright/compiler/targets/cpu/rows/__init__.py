"""Pointwise and row kernels, scans, sorts and scatters: loops over positions, with vectors along an axis."""
