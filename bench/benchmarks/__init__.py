"""One module for each benchmark, or for a few that share what they run on. Each gives a section of the document."""
