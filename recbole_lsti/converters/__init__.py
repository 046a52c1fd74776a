"""From any log a user has to RecBole atomic files; starts fast, as it imports neither torch nor recbole."""

from .errors import AtomicFileError

__all__ = ["AtomicFileError"]
