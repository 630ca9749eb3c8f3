"""The autotuner's ground: which schedules a kernel may have. Search and storage of what was found come on
top.
"""
