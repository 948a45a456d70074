"""Run servers and processes for development and tests. Production code never imports this room."""
