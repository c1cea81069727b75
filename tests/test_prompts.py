"""Words and tokens: alignments of prompts against those written down by hand.

Words as people write them are tested on CLIP's own vocabulary and tokenizer, from OpenAI's
package, which is not imported whole: it asks for torchvision.
"""

import gzip
import importlib.metadata
import importlib.util
import json
import warnings

import pytest
import tokenizers
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from transformers import AddedToken, CLIPTokenizer

from erddci.checkpoint.hub import EMBEDDED
from erddci.notices import NoEffect
from erddci.prompts import align, changed_tokens, check_prompt, token_mask, word_maps, words_of
from erddci.scenes.captions import LENGTH, tokenizer

RED = "a red cube on a teal floor"
BLUE = "a blue cube on a teal floor"
TWO = "a large red cube left of a {} blue cone on a teal floor"

PIECES = "skate board sing ing</w> cat</w> dog</w> is</w> ed</w>".split()


@pytest.fixture(scope="module")
def whole():
    """The tokenizer of the embedded model, in which every word is one token."""
    return tokenizer()


@pytest.fixture(scope="module")
def cut():
    """A CLIP tokenizer that cuts words into `PIECES` and letters, with prompts of 12 tokens."""
    letters = [*"abcdefghijklmnopqrstuvwxyz,."]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for piece in PIECES:
        start, *rest = piece.removesuffix("</w>")
        rest[-1] += "</w>" * piece.endswith("</w>")
        for letter in rest:
            merges.append((start, letter))
            start += letter
            tokens.append(start)
    tokens = dict.fromkeys(["<|startoftext|>", "<|endoftext|>", *tokens])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), model_max_length=12)


def answers(alignment, row=0):
    """Which source places each target place takes, with their shares, as far as it takes any."""
    found = {}
    for place, shares in enumerate(alignment.mapping[row]):
        if shares.any():
            found[place] = {of: shares[of].item() for of in shares.nonzero().flatten().tolist()}
    assert list(found) == alignment.mapped[row].nonzero().flatten().tolist()
    assert set(alignment.mapped.unique().tolist()) <= {0, 1}
    return found


def one_each(of):
    return {place: {source: 1.0} for place, source in of.items()}


def places(marks):
    assert set(marks.tolist()) <= {0, 1}
    return marks.nonzero().flatten().tolist()


# Words.


def test_words_of_whole_tokens(whole):
    expected = [(word, [place]) for place, word in enumerate(RED.split(), 1)]
    assert list(words_of(whole, RED).values()) == expected
    assert words_of(whole, "") == {}


def test_words_of_pieces(cut):
    assert words_of(cut, "A cat, skateboarding.") == {
        0: ("a", [1]),
        1: ("cat", [2]),
        2: (",", [3]),
        3: ("skateboarding", [4, 5, 6]),
        4: (".", [7]),
    }


def test_places_are_those_of_the_numbers_that_the_encoder_sees(cut):
    prompt = "a dog is skateboarding, singing"
    numbers = cut(prompt).input_ids
    for word, at in words_of(cut, prompt).values():
        assert cut.decode([numbers[place] for place in at]).strip() == word


def test_unknown_marks_are_words_of_their_own(whole):
    # The embedded model has no comma; it must not become a part of the next word.
    found = [(word, at) for word, at in words_of(whole, "a cube, on a floor").values()]
    assert found[2:4] == [(",", [3]), ("on", [4])]


# Masks.


def test_mask_marks_words_wherever_they_occur(whole, cut):
    assert token_mask(whole, RED, ["red"]).shape == (LENGTH,)
    assert places(token_mask(whole, RED, ["red", "floor"])) == [2, 7]
    assert places(token_mask(whole, RED, ["a"])) == [1, 5]
    assert places(token_mask(whole, RED, ["Red"])) == [2]
    assert places(token_mask(whole, RED, [])) == []
    assert places(token_mask(cut, "a skateboarding cat", ["skateboarding"])) == [2, 3, 4]
    assert places(token_mask(cut, "a cat, a dog.", [",", "dog"])) == [3, 5]


def test_a_word_that_is_not_there_lists_those_that_are(whole, cut):
    words = "“green” is not a word of “a red cube on a teal floor”: expected some of a, red, cube,"
    with pytest.raises(ValueError, match=words):
        token_mask(whole, RED, ["red", "green"])
    with pytest.raises(ValueError, match="“board” is not .* some of a, skateboarding$"):
        token_mask(cut, "a skateboarding", ["board"])  # a piece is no word


# Changes.


@pytest.mark.parametrize(
    ("source", "target", "left", "right"),
    [
        (RED, BLUE, [2], [2]),
        (RED, RED, [], []),
        ("a cube on a floor", "a red cube on a floor", [], [2]),
        ("a red cube on a floor", "a cube on a floor", [2], []),
        (RED, "a blue cone on a teal floor", [2, 3], [2, 3]),
        ("a red cube on a floor", "a cube on a teal floor", [2], [5]),
        ("", "a cube", [], [1, 2]),
    ],
)
def test_changes_mark_what_goes_and_what_comes(whole, source, target, left, right):
    assert tuple(map(places, changed_tokens(whole, source, target))) == (left, right)


@pytest.mark.parametrize("sizes", [("small", "large"), ("large", "small")])
def test_a_repeated_word_is_marked_only_where_it_changed(whole, sizes):
    before, after = (TWO.format(size) for size in sizes)
    assert tuple(map(places, changed_tokens(whole, before, after))) == ([8], [8])
    assert places(token_mask(whole, TWO.format("large"), ["large"])) == [2, 8]  # unlike a mask


def test_changes_of_words_in_pieces(cut):
    source, target = "a cat is skateboarding", "a cat is singing, a dog"
    assert tuple(map(places, changed_tokens(cut, source, target))) == ([4, 5, 6], [4, 5, 6, 7, 8])


# Alignments.


def test_equal_prompts_answer_themselves(whole):
    for kind in ("replace", "refine"):
        found = align(whole, [RED], [RED], kind)
        assert torch.equal(found.mapping[0], torch.eye(LENGTH))
        assert found.mapped.all() and (found.weights == 1).all()
        assert found.mapped.shape == found.weights.shape == (1, LENGTH)


def test_replaced_words_take_the_attention_of_the_old_ones(whole):
    found = align(whole, [RED], ["a blue cone on a teal floor"], "replace")
    assert torch.equal(found.mapping[0], torch.eye(LENGTH)) and found.mapped.all()


def test_refined_words_keep_their_own(whole):
    found = align(whole, [RED], ["a blue cone on a teal floor"], "refine")
    assert answers(found) == one_each({n: n for n in range(LENGTH) if n not in (2, 3)})
    assert align(whole, [RED], [BLUE]).mapped[0].argmin() == 2  # refinement is what is usual


@pytest.mark.parametrize("kind", ["replace", "refine"])
def test_inserted_words_have_none_to_take(whole, kind):
    # start a cube on a floor end …  →  start a RED cube on a floor end …
    found = align(whole, ["a cube on a floor"], ["a red cube on a floor"], kind)
    expected = {0: 0, 1: 1, 3: 2, 4: 3, 5: 4, 6: 5}
    ends = {place: place - 1 for place in range(7, LENGTH)}
    assert answers(found) == one_each(expected | ends)


@pytest.mark.parametrize("kind", ["replace", "refine"])
def test_deleted_words_are_answered_by_none(whole, kind):
    found = align(whole, ["a red cube on a floor"], ["a cube on a floor"], kind)
    expected = {0: 0, 1: 1, 2: 3, 3: 4, 4: 5, 5: 6}
    # One more padding than the source has: the last one answers the source's last again.
    ends = {place: min(place + 1, LENGTH - 1) for place in range(6, LENGTH)}
    assert answers(found) == one_each(expected | ends)


def test_more_words_than_were_replaced_share_what_those_see(whole):
    # Four words answer two as one: each takes a quarter of what the two see together.
    found = align(whole, ["red cube on"], ["large shiny blue cone on"], "replace")
    ends = {place: {place - 2: 1} for place in range(6, LENGTH)}
    shared = {place: {1: 0.25, 2: 0.25} for place in range(1, 5)}
    assert answers(found) == {0: {0: 1}, 5: {3: 1}} | shared | ends
    found = align(whole, ["large shiny blue cone on"], ["red cube on"], "replace")
    ends = {place: {min(place + 2, LENGTH - 1): 1} for place in range(4, LENGTH)}
    half = dict.fromkeys(range(1, 5), 0.5)
    assert answers(found) == {0: {0: 1}, 1: half, 2: half, 3: {5: 1}} | ends


def test_words_of_as_many_pieces_answer_piece_by_piece(cut):
    found = align(cut, ["a skateboarding cat"], ["a boardskateing cat"], "replace")
    assert cut.tokenize("boardskateing") == ["board", "skate", "ing</w>"]
    assert answers(found) == one_each({n: n for n in range(12)})


def test_words_of_fewer_or_more_pieces_keep_the_attention_in_total(cut):
    # a skate board ing cat: places 2, 3 and 4; a sing ing cat: places 2 and 3.
    long, short = "a skateboarding cat", "a singing cat"
    fewer = answers(align(cut, [long], [short], "replace"))
    assert fewer[2] == fewer[3] == {2: 0.5, 3: 0.5, 4: 0.5} and fewer[4] == {5: 1}
    assert [fewer[place] for place in (5, 10, 11)] == [{6: 1}, {11: 1}, {11: 1}]
    more = answers(align(cut, [short], [long], "replace"))
    third = pytest.approx({2: 1 / 3, 3: 1 / 3})
    assert more[2] == third and more[3] == third and more[4] == third and more[5] == {4: 1}
    assert [more[place] for place in (0, 1, 6, 11)] == [{0: 1}, {1: 1}, {5: 1}, {10: 1}]


def test_refined_pieces_move_what_follows(cut):
    found = align(cut, ["a cat, skateboarding"], ["a cat is skateboarding."], "refine")
    # The comma became "is"; the full stop is new; all pieces stay where they are.
    kept = {0: 0, 1: 1, 2: 2, 4: 4, 5: 5, 6: 6}
    ends = {place: place - 1 for place in range(8, 12)}
    assert answers(found) == one_each(kept | ends)


def test_every_pair_of_a_batch_is_aligned_by_itself(whole):
    sources, targets = [RED, "a cube on a floor"], [BLUE, "a red cube on a floor"]
    both = align(whole, sources, targets)
    assert both.mapping.shape == (2, LENGTH, LENGTH)
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        one = align(whole, [source], [target])
        assert torch.equal(both.mapping[row], one.mapping[0])
        assert torch.equal(both.mapped[row], one.mapped[0])


# Weights.


def test_weights_scale_the_words_of_those_prompts_that_have_them(whole):
    found = align(
        whole, [RED] * 2, [RED, BLUE], weights={"red": 3, "blue": 4, "Cube": 0.5, "a": 2}
    )
    expected = torch.ones(2, LENGTH)
    expected[:, 3], expected[:, [1, 5]], expected[:, 2] = 0.5, 2, torch.tensor([3.0, 4.0])
    assert torch.equal(found.weights, expected)


def test_weights_scale_all_pieces_of_a_word(cut):
    found = align(cut, ["a cat"], ["a skateboarding cat"], weights={"skateboarding": -1})
    assert found.weights[0].tolist() == [1, 1, -1, -1, -1, *[1] * 7]


# What is refused.


def test_wrong_use_is_refused(whole):
    with pytest.raises(ValueError, match="kind to be 'replace' or 'refine', got 'swap'"):
        align(whole, [RED], [BLUE], "swap")
    with pytest.raises(ValueError, match="“green” is not a word of “a blue cube.*: expected some"):
        align(whole, [RED] * 2, [BLUE, RED], weights={"green": 2})
    with pytest.raises(ValueError, match="shorter"):
        align(whole, [RED] * 2, [BLUE])


def test_word_maps_are_those_of_the_words_in_order(whole):
    prompt = "a red cube left of a blue cube on a grey floor"
    maps = torch.arange(LENGTH)[None, :, None, None] * torch.ones(1, 1, 2, 2)
    words = word_maps(whole, prompt, maps)
    assert [word for word, _ in words] == prompt.split()
    assert [attention[0, 0] for _, attention in words] == list(range(1, 13))
    chosen = word_maps(whole, prompt, maps, ["cube", "blue"])
    assert [(word, attention[0, 0]) for word, attention in chosen] == [
        ("cube", 3),
        ("blue", 7),
        ("cube", 8),
    ]


def test_map_of_a_word_is_the_sum_over_its_tokens(cut):
    maps = torch.arange(12.0)[None, :, None, None] * torch.ones(1, 1, 2, 2)
    words = word_maps(cut, "skateboard cat", maps)
    places = [places for _, places in words_of(cut, "skateboard cat").values()]
    assert len(places[0]) > 1
    assert [attention[0, 0] for _, attention in words] == [sum(each) for each in places]


# Words as people write them, in CLIP's own vocabulary.


@pytest.fixture(scope="module")
def openai():
    """The module of OpenAI's own tokenizer."""
    package = importlib.metadata.distribution("openai-clip")
    file = package.locate_file("clip/simple_tokenizer.py")
    spec = importlib.util.spec_from_file_location("simple_tokenizer", str(file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clip(openai):
    """CLIP's tokenizer, as Stable Diffusion ships it, with tokens of textual inversions."""
    lines = gzip.open(openai.default_bpe()).read().decode().splitlines()
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    letters = list(openai.bytes_to_unicode().values())
    names = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    found = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    found.add_tokens([*TOYS, AddedToken("<Raw>", normalized=False)])
    return found


TOYS = ["<toy>", "sks7", "Naïve", "<two>", "<two>_1", "<two>_2"]
WRITTEN = {
    "A photo of a CAFÉ": ["a", "photo", "of", "a", "café"],
    "ein Bär im Wald": ["ein", "bär", "im", "wald"],
    "cafe\u0301 x\u0302": ["café", "x", "\u0302"],
    "a cat's toy, don't": ["a", "cat", "'s", "toy", ",", "don", "'t"],
    "a left-handed 42": ["a", "left", "-", "handed", "4", "2"],
    # All in a row that is neither letter nor digit is one word to CLIP.
    "an 😀 👨‍👩‍👧!": ["an", "😀", "👨‍👩‍👧!"],
    "猫 और кот": ["猫", "और", "кот"],
    "a  \t dog\n\u00a0dog": ["a", "dog", "dog"],
    "...!? (a)": ["...!?", "(", "a", ")"],
    "": [],
    " ": [],
}
GLUED = {
    "a <toy>on a<toy><toy>.": ["a", "<toy>", "on", "a", "<toy>", "<toy>", "."],
    "sks7s, <toy> ": ["sks7", "s", ",", "<toy>"],
    "naïve NAÏVE Nai\u0308ve": ["Naïve"] * 3,
    "<Raw> <raw>": ["<Raw>", "<", "raw", ">"],
    "a<|endoftext|>b": ["a", "<|endoftext|>", "b"],
}


def names(tokenizer, prompt):
    return [word for word, _ in words_of(tokenizer, prompt).values()]


def test_the_vocabulary_is_clips(clip, openai):
    reference = openai.SimpleTokenizer()
    for prompt in WRITTEN:
        assert clip(prompt).input_ids[1:-1] == reference.encode(prompt)


@pytest.mark.parametrize("prompt", WRITTEN | GLUED)
def test_words_are_as_people_write_them(clip, prompt):
    assert names(clip, prompt) == (WRITTEN | GLUED)[prompt]


@pytest.mark.parametrize(
    ("prompt", "name", "expected"),
    [
        ("a photo of a café", "CAFÉ", [5]),
        ("a photo of a café", "Cafe\u0301", [5]),
        ("a cat's toy", "cat's", [2, 3]),
        ("a cat's toy", "cat", [2]),
        ("a cat' toy's cat's", "cat's", [6, 7]),
        ("left-handed, left handed", "left-handed", [1, 2, 3]),
        ("a 42, 4, 2", "42", [2, 3]),
        ("a red cube", "red cube", [2, 3]),
        ("a <toy>on <toy>.", "<toy>", [2, 4]),
        ("a <toy>on", "on", [3]),
        ("a nAÏVE cat", "naïve", [2]),
        ("a dog and a dog", "dog", [2, 5]),
        ("aa a a a", "a a", [2, 3, 4]),
    ],
)
def test_words_are_found_however_they_are_written(clip, prompt, name, expected):
    assert places(token_mask(clip, prompt, [name])) == expected
    weights = align(clip, [prompt], [prompt], weights={name: 3.0}).weights[0]
    assert places(weights == 3) == expected and (weights == 1).sum() == 77 - len(expected)
    found = word_maps(clip, prompt, torch.ones(1, 77, 2, 2), [name])
    assert sum(each[0, 0] for _, each in found) == len(expected)


@pytest.mark.parametrize("name", ["caf", "", " ", "'s cat", "s", "<toy", "toy's <toy>"])
def test_what_is_no_word_lists_those_that_are(clip, name):
    listed = (
        f"“{name}” is not a word of “a café cat's <toy>”: expected some of a, café, cat, 's, <"
    )
    with pytest.raises(ValueError, match=listed):
        token_mask(clip, "a café cat's <toy>", [name])
    with pytest.raises(ValueError, match=listed):
        align(clip, [""], ["a café cat's <toy>"], weights={name: 2})


@pytest.mark.parametrize("glue", ["", " "])
@pytest.mark.parametrize("kind", ["replace", "refine"])
def test_added_tokens_align_as_other_words_do(clip, glue, kind):
    # Where a plain word is one token too, the alignment is the same.
    source, target = (f"a small {{}}{glue}, red" for _ in range(2))
    plain = align(clip, [source.format("cube")], [target.format("ball")], kind)
    added = align(clip, [source.format("<toy>")], [target.format("sks7")], kind)
    mixed = align(clip, [source.format("<toy>")], [target.format("ball")], kind)
    assert torch.equal(plain.mapping, added.mapping) and torch.equal(plain.mapped, added.mapped)
    assert torch.equal(plain.mapping, mixed.mapping) and torch.equal(plain.mapped, mixed.mapped)
    found = changed_tokens(clip, source.format("<toy>"), target.format("ball"))
    assert tuple(map(places, found)) == ([3], [3])


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_factors_that_are_no_numbers_are_refused(clip, factor):
    with pytest.raises(ValueError, match=f"finite factor for “dog”, got {factor}"):
        align(clip, ["a dog"], ["a dog"], weights={"dog": factor})


# The limit.


def test_a_prompt_at_the_limit_is_whole(clip):
    prompt = "dog " * 74 + "<toy>"
    assert places(token_mask(clip, prompt, ["<toy>"])) == [75]
    assert torch.equal(align(clip, [prompt], [prompt]).mapping[0], torch.eye(77))
    check_prompt(clip, prompt, len(clip))


@pytest.mark.parametrize("last", ["Bär", "👨‍👩‍👧"])
def test_a_prompt_over_the_limit_says_from_which_word(clip, last):
    # The word is cut in the middle of a letter; it is named whole, as it was written.
    prompt = "dog " * (76 - len(clip.tokenize(last))) + last
    words = f"has 76 tokens, expected at most 75: shorten it, from “{last}” on it would be cut"
    for use in (
        lambda: words_of(clip, prompt),
        lambda: token_mask(clip, prompt, ["dog"]),
        lambda: align(clip, [prompt], ["a"]),
        lambda: changed_tokens(clip, "a", prompt),
        lambda: check_prompt(clip, prompt, len(clip)),
    ):
        with warnings.catch_warnings(), pytest.raises(ValueError, match=words):
            warnings.simplefilter("error")
            use()


# What the text encoder cannot read.


def test_what_the_tokenizer_does_not_know_is_said(cut):
    with pytest.warns(NoEffect, match="knows no “é”, “-”: the model does not read that of “é, "):
        check_prompt(cut, "é, dog-", len(cut))


def test_what_the_tokenizer_drops_is_said(cut):
    # Without an unknown token, byte-pair encoding leaves out what it does not know.
    data = json.loads(cut.backend_tokenizer.to_str())
    data["model"]["unk_token"] = None
    dropping = CLIPTokenizer(vocab={}, merges=[], model_max_length=12)
    dropping._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    assert dropping.tokenize("é dog") == ["dog</w>"]
    with pytest.warns(NoEffect, match="knows no “é”"):
        check_prompt(dropping, "é dog", len(cut))


def test_the_first_of_several_vectors_alone_is_said(clip):
    with pytest.warns(NoEffect, match="“<two>” is the first of .*: write “<two> <two>_1” and so"):
        check_prompt(clip, "a <two> on a floor", len(clip))


def test_an_added_token_without_an_embedding_is_refused(clip):
    with pytest.raises(ValueError, match="embedding for “<toy>”.*: call text_encoder.resize_to"):
        check_prompt(clip, "a <toy>", 49408)


def test_what_can_be_read_is_not_said(clip, whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prompt in WRITTEN | GLUED | {"a <two> <two>_1 <two>_2": []}:
            check_prompt(clip, prompt, len(clip))
        check_prompt(whole, RED, len(whole))


def test_the_embedded_model_takes_added_tokens_and_no_other_words(whole):
    toys = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    toys.add_tokens(TOYS)
    check_prompt(toys, "a small <toy>on a teal floor", len(toys))
    for word in ("dog", "café", ",", "<other>", "toy"):
        with pytest.raises(ValueError, match="does not know all words of “a .*trained on a, on,"):
            check_prompt(toys, f"a {word} <toy>", len(toys))


# Any prompt.

LETTERS = st.text(max_size=6) | st.text("aeéÉßİǆ'’-.,4٣ 😀👍🏽\u0301\u200d", max_size=6)
PROMPTS = st.lists(st.sampled_from([*TOYS, "<Raw>", "red", "Cube", " "]) | LETTERS).map("".join)
random = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@random
@given(prompt=PROMPTS)
@example(prompt="<toy>İ\u0301 a")
def test_every_token_of_any_prompt_is_of_one_word(clip, prompt):
    assume(len(clip.tokenize(prompt)) <= 75)
    words = words_of(clip, prompt)
    found = [place for _, at in words.values() for place in at]
    assert found == list(range(1, 1 + len(clip.tokenize(prompt))))
    written = clip.backend_tokenizer.normalizer.normalize_str(prompt).replace(" ", "")
    # Added tokens keep their own name, whatever their case in the prompt.
    assert "".join(names(clip, prompt)).lower() == written.lower()


@random
@given(prompt=PROMPTS, kind=st.sampled_from(["replace", "refine"]))
def test_any_prompt_aligned_with_itself_is_the_identity(clip, prompt, kind):
    assume(len(clip.tokenize(prompt)) <= 75)
    found = align(clip, [prompt], [prompt], kind)
    assert torch.equal(found.mapping[0], torch.eye(77)) and found.mapped.all()
    assert not any(map(torch.any, changed_tokens(clip, prompt, prompt)))


@random
@given(source=PROMPTS, target=PROMPTS)
def test_any_replacement_shares_out_all_attention(clip, source, target):
    # Every token of the target that answers takes whole columns of the source: sums are kept.
    assume(max(len(clip.tokenize(each)) for each in (source, target)) <= 75)
    mapping = align(clip, [source], [target], "replace").mapping[0]
    assert mapping.min() >= 0
    answered = mapping.sum(0)
    starts = len(clip.tokenize(source)) + 1
    removed, _ = changed_tokens(clip, source, target)
    kept = [place for place in range(starts) if not removed[place]]
    torch.testing.assert_close(answered[kept], torch.ones(len(kept)))


@random
@given(prompt=PROMPTS, data=st.data())
def test_any_word_of_any_prompt_is_found_by_its_name(clip, prompt, data):
    assume(0 < len(clip.tokenize(prompt)) <= 75)
    words = words_of(clip, prompt)
    word, at = data.draw(st.sampled_from(list(words.values())))
    assert set(at) <= set(places(token_mask(clip, prompt, [word])))
    assert word in names(clip, prompt)
