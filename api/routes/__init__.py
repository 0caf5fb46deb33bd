"""What the API answers, one module for each group of addresses."""
