"""The database of adapters: what is recorded, and how it is found. SQLAlchemy lives here and nowhere else."""

from loreg.catalog.catalog import Catalog
from loreg.catalog.transaction import Transaction

__all__ = ["Catalog", "Transaction"]
