"""Tests on real processes: a broker, workers, the command line."""
