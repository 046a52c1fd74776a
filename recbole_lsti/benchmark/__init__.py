"""Many models on many data sets under one plan, each cell of it in a process of its own, and what their results say.

Importing the package is light; its modules load torch and RecBole when they are used.
"""
