"""The working folder of a run, and runs on several ranks."""
