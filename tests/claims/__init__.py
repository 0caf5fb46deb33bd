"""What the notebooks claim, tested on real processes."""
