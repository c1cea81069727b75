"""ERDDCI: exact reversible diffusion via dual-chain inversion, to see, test and trust.

model = erddci.load()
example = erddci.examples()[0]
source = model.condition(example.source)
path = erddci.invert(model, model.encode(example.image), source, method="dual-chain")
back = erddci.reconstruct(model, path)
path.latent_error(back).max()
edited = erddci.edit(model, path, model.condition(example.target, guidance_scale=3))

`__init__.pyi` lists what the package exports; it is imported when it is first used, so
`import erddci` does not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
