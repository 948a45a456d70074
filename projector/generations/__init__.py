"""Build generations of read models, compare them with the log, make them live, and roll back."""
