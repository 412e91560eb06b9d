"""The noise store: one SQLite file, looked up by what an image holds."""
