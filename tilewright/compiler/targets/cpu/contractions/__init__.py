"""Contractions: blocks of results in registers, over panels of packed or directly read operands."""
