"""The registries that folders and servers follow."""

from server.conftest import guarded, guarded_folder

__all__ = ["guarded", "guarded_folder"]
