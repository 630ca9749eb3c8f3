"""Windows of few taps: written out for strips of lines, and their gradients."""
