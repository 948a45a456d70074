"""The query API: answers queries from the read models and the log, and names the position of the log for each answer."""
