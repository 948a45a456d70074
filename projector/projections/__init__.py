"""Turn events into changes of read models with pure functions. Each read model has its own file."""
