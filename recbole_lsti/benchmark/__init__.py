"""A fair comparison in one command: a plan of cells (model, data set, split, seed), each run in a process of its own."""
