"""The demonstration on data that a Python package brings along."""
