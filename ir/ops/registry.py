"""The one table of ops, filled by the other files of this folder."""
from ..op import Registry

OPS = Registry()
