"""Where words attend: cross-attention of both prompts of an edit, averaged over the sampling.

The edit is that of the dual chain at w = 7.5 with dynamic guidance, and no control acts. Maps are
means over heads, layers of 8 × 8 pixels and 20 steps, each scaled to its own maximum.
"""

import pandas as pd

from erddci import edit, experiments, plots
from erddci.controls import AttentionStore
from erddci.editing import EditConfig
from erddci.prompts import word_maps
from erddci.scenes.examples import examples

WORDS = "pink green shiny cone sphere yellow matte cube brown floor".split()


def draw(model, guidance_scale=7.5, steps=20, words=WORDS):
    """Record the attention of one example's edit; where words attend, and how much."""
    (scene,) = [each for each in examples() if each.name == "replace"]
    config = EditConfig(guidance_scale=guidance_scale, steps=steps)
    path = experiments.invert_scenes(model, [scene], config)
    target = model.condition(scene.target).with_guidance(guidance_scale, config.schedule)
    edited = edit(model, path, target, AttentionStore())
    assert edited.attention
    images = {"source": model.decode(path.x0)[0], "target": model.decode(edited.x0)[0]}
    prompts = {"source": scene.source, "target": scene.target}
    maps = {
        whose: word_maps(model.tokenizer, prompt, edited.attention.maps(whose), words)
        for whose, prompt in prompts.items()
    }
    table = pd.DataFrame(
        {"prompt": whose, "word": word, "mean": attended.mean(), "max": attended.max()}
        for whose, each in maps.items()
        for word, attended in each
    )
    return plots.attention_maps(images, maps), {"words": table}
