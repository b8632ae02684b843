"""What pytest does not look into: a part of a benchmark that imports Ray, which must not happen before Ray is set up."""

collect_ignore = ["asha.py"]
