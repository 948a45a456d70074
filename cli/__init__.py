"""The `daybook` command line. Each command has a module that parses its arguments and prints results. Other rooms do the work."""
