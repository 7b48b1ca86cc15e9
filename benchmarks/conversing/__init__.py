"""What `benchmarks.conversations` measures, a file for each."""
