"""Where words look: cross-attention of both prompts of an edit, averaged over the walk back.

The edit is that of the dual chain at w = 7.5 with fading guidance, and no control acts. Maps are
means over heads, layers of 8 × 8 pixels and 20 steps, each scaled to its own maximum.
"""

import pandas as pd

from erddci import DEFAULT_SCHEDULE, controls, edit, experiments, plots
from erddci.scenes.examples import examples

WORDS = "pink green shiny cone sphere yellow matte cube brown floor".split()


def draw(model, guidance_scale=7.5, steps=20, words=WORDS):
    """Watch the attention of one example's edit; where words look, and how much."""
    (scene,) = [each for each in examples() if each.name == "replace"]
    path = experiments.climbed(
        model, [scene], "dual-chain", guidance_scale, steps, DEFAULT_SCHEDULE
    )
    target = model.condition(scene.target).with_guidance(guidance_scale, DEFAULT_SCHEDULE)
    found = edit(model, path, target, controls.AttentionStore())
    assert found.attention
    images = {"source": model.decode(path.x0)[0], "target": model.decode(found.x0)[0]}
    prompts = {"source": scene.source, "target": scene.target}
    maps = {
        whose: experiments.word_maps(model.tokenizer, prompt, found.attention.maps(whose), words)
        for whose, prompt in prompts.items()
    }
    table = pd.DataFrame(
        {"prompt": whose, "word": word, "mean": looks.mean(), "max": looks.max()}
        for whose, each in maps.items()
        for word, looks in each
    )
    return plots.attention_maps(images, maps), {"words": table}
