"""What is read from a GPU, one file a group: a dataclass, how to read it, and its metrics."""
