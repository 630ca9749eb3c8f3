"""What launches need and mathematics does not: build cache, memory, threads, devices."""
