"""Turns fMRI files into a matrix of images x voxels with stimulus ids, a split, regions and a noise ceiling.

`read_nsd` reads the Natural Scenes Dataset (and a simulated subject in its layout), `read_custom` a laboratory's own
scans, which `read_bids` finds in a folder of BIDS derivatives; `save_subject` and `load_subject` keep the result in one
file. It knows file layouts, and nothing of diffusion.
"""

from unibrain.scans.bids import read_bids
from unibrain.scans.custom import read_custom
from unibrain.scans.custom_table import read_table
from unibrain.scans.nsd import read_nsd
from unibrain.scans.prepare import PROTOCOLS, PrepareSettings
from unibrain.scans.published_split import read_picture_split
from unibrain.scans.subject import Subject, load_subject, save_subject, split_hash, write_split

__all__ = [
    "PROTOCOLS",
    "PrepareSettings",
    "Subject",
    "load_subject",
    "read_bids",
    "read_custom",
    "read_nsd",
    "read_picture_split",
    "read_table",
    "save_subject",
    "split_hash",
    "write_split",
]
