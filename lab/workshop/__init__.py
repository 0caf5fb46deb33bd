"""The workshop: exercises, and a checker that runs them on real workers."""
