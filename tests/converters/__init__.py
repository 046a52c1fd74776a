"""Tests of recbole_lsti.converters, a file a room."""
