"""A laboratory's own scans: a matrix of scans x voxels, and a table that says what was shown in each.

It knows file formats (npy, csv, tsv, HDF5, NIfTI, GLMsingle's output), and nothing of how the files came about.
"""

from unibrain.scans.own.read import read_own
from unibrain.scans.own.table import OwnTable, read_table

__all__ = ["OwnTable", "read_own", "read_table"]
