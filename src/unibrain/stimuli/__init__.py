"""The pictures and captions that were shown, by stimulus id."""
