"""Several boards at once: one process for each, a table of them, a log for each."""
