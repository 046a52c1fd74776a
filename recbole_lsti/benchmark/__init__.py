"""Many models on many data sets under one plan, and what their results say about each other."""
