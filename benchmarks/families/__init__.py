"""One file a family; each has `BENCHES`."""

from benchmarks.families import elementwise, products, rows, training

BENCHES = [*products.BENCHES, *elementwise.BENCHES, *rows.BENCHES, *training.BENCHES]
