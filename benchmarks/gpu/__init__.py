"""`python -m benchmarks gpu`: generated kernels on a card, beside torch's and the card's own limits."""
