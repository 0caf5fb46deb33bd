"""The texts of the repository do not drift from the code."""
