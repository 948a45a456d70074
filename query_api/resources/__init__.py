"""The resources of the query API. Each file has one resource: its parameters, its answers, its reads and its routes."""
