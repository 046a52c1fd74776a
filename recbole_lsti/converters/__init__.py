"""From any log a user has to RecBole atomic files; starts fast, as it imports neither torch nor recbole."""

from recbole_lsti.errors import AtomicFileError

__all__ = ["AtomicFileError"]
