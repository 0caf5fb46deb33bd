"""Tests: what this project promises, on real processes."""
