"""Comparisons of growth strategies and baselines: what is compared, its tables, and statistics that hold."""
