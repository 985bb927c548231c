"""The claims of the bandits, one file per theme."""

from importlib import import_module
from pkgutil import iter_modules

for _theme in iter_modules(__path__):
    import_module(f"{__name__}.{_theme.name}")
