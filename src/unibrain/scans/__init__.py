"""Turns fMRI files into a matrix of images x voxels with stimulus ids, a split, regions and a noise ceiling."""
