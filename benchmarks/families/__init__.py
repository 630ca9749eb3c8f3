"""One file a family; each has `BENCHES`."""

from benchmarks.families import attention, convolutions, elementwise, products, rows, training

FAMILIES = (products, convolutions, elementwise, rows, attention, training)
BENCHES = [bench for family in FAMILIES for bench in family.BENCHES]
