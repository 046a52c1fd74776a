"""From an input file to Arrow batches of text columns with line numbers, for every format.

A reader yields batches whose columns are the wanted columns as text, plus ``_line``; they are named by number, because
the engine does not tell ``Title`` from ``title``. JSON keeps each object whole in one column, ``_json``: the engine
extracts its fields, so that nothing is ever evaluated.
"""
