"""How sides of a contraction are read in a call, and in which register blocks: extents and strides decide."""
