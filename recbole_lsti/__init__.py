"""Long- and short-term interest recommendation for RecBole."""

from recbole_lsti._version import __version__

__all__ = ["__version__"]
