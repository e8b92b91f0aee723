"""What the benchmarks compare with: the usual way to do a thing, written as plainly as the field writes it."""
