"""The database of adapters. SQLAlchemy lives here and nowhere else."""

from loreg.catalog.catalog import Catalog
from loreg.catalog.transaction import Transaction

__all__ = ["Catalog", "Transaction"]
