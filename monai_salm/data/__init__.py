"""A data set, looked at once before anything is made from it."""
