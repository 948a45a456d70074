"""Load data of other systems through the command API, like any other caller."""
