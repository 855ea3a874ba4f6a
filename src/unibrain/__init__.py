"""UniBrain: from an fMRI scan to the picture that was seen and a sentence that describes it."""

__version__ = "0.1.0"
