"""Data set and method to noise store."""
