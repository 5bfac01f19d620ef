"""A value that stands in a YAML file and in a class is the same in both."""

import inspect

import pytest
import yaml

from src_pure.config.names import COMPONENTS, CONFIG_DIR, known_names
from src_pure.config.targets import resolve

NAMED = {"agalite_small", "gtrxl", "rezero", "transformer", "trxl", "universal", "integrated"}
