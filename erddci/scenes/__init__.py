"""The embedded model: its scenes, their captions, its training and its judge."""
