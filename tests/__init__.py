"""All tests of the project, by what they need: services alone, real processes, notebooks, a browser."""
