"""The learning machinery: it starts real processes and looks at them."""
