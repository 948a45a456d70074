"""Run the benchmarks. A module has one benchmark, or several that share a setup. Each benchmark makes a section of the report."""
