"""The command API: receives commands over HTTP, decides each one, and appends the resulting events to the log."""
