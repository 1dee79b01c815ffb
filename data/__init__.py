"""From data sets to tensors."""

from .frames import from_dataframe

__all__ = ["from_dataframe"]
