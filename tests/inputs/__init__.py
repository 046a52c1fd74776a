"""Tests of inputs beside the item ids."""
