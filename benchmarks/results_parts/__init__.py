"""What ``benchmarks/results.py`` measures, and the page it writes of it."""
