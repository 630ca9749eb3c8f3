"""The functions of `nn.functional`, by what they are for."""
