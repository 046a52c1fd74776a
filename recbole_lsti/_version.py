"""The version of the package, and nothing that costs an import."""

__version__ = "0.1.0"
