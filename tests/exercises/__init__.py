"""The workshop: its exercises, its checker, its commands."""
