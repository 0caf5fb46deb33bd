"""A program that sets up its own log handler before the worker does."""

import logging
import os

logging.getLogger().addHandler(logging.FileHandler(os.environ["OWN_LOG"]))
