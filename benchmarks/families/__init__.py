"""One file a family; each has `BENCHES`."""

from benchmarks.families import convolutions, elementwise, products, rows, training

BENCHES = [*products.BENCHES, *convolutions.BENCHES, *elementwise.BENCHES, *rows.BENCHES, *training.BENCHES]
