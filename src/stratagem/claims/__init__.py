"""Claims: one small experiment per technique, a file or folder per family; importing this enters them all."""

from importlib import import_module
from pkgutil import iter_modules

for _family in iter_modules(__path__):
    import_module(f"{__name__}.{_family.name}")
