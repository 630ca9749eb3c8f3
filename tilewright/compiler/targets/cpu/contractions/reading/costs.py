"""What register blocks and their steps take, in multiply-adds of a vector, and how large they may be."""

from __future__ import annotations

FEW = 128  # summed positions: what is done for each register block, and writing the results, decides
TO_HIDE = 8  # sums of a register block that hide the time of a multiply-add
ONCE_A_STEP = 1.0  # what a step of a register block takes beside
HIDING = 16  # sums of a register block that hide the reading of columns from the second cache
REUSED = 4  # products of each element of windows: what rows read has been brought by those before, mostly
