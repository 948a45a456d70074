"""Decides and records: takes commands over HTTP and appends the events that follow from them."""
