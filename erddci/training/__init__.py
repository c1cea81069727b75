"""Training the embedded model: its images, its networks, and the folder that is shipped."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
