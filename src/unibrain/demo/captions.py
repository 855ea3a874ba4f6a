"""Captions of scenes: at least five true, differently worded sentences per picture.

Every caption names all objects; most name the place, some the sizes, the position or the relation.
"""

import hashlib
from functools import lru_cache

from unibrain.demo.backgrounds import BACKGROUNDS, background
from unibrain.demo.scenes import Scene, SceneObject, load_catalogue

MINIMUM_WORDS, MAXIMUM_WORDS = 5, 16

_WHERE = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
}

# {a}, {b}: the objects with article; {A}, {B}: with their size; {s}, {t}: by their synonym, with article;
# {place}, {spot}: where; {scenery}: the place as a noun; {where}: position of a single object.
_SINGLE: tuple[tuple[str, ...], ...] = (
    ("{a} {place}", "there is {a} {place}", "a picture of {a} {place}"),
    ("{A} {spot}", "{A} seen {place}", "{A} {place}"),
    ("{scenery} with {A} {where}", "{scenery} with {A}", "a view of {scenery} with {a}"),
    ("{s} {place}", "{s} is {spot}", "a photo of {s} {spot}"),
    ("{A} {where} of the picture", "{a} alone {spot}", "{s} alone {place}"),
)
_BESIDE: tuple[tuple[str, ...], ...] = (
    ("{a} next to {b} {place}", "{b} next to {a} {place}", "{a} beside {b} {place}"),
    ("{A} and {B} {spot}", "{a} and {b} {spot}", "there is {a} and {b} {spot}"),
    ("{A} to the left of {B} {place}", "{B} to the right of {A} {place}", "{a} to the left of {b} {place}"),
    ("{scenery} with {A} and {B}", "{scenery} with {b} and {a}", "{scenery} with {a} and {b}"),
    ("{s} next to {t} {spot}", "{t} beside {s} {spot}", "{a} on the left and {b} on the right"),
)
_STACKED: tuple[tuple[str, ...], ...] = (
    ("{a} above {b} {place}", "{b} below {a} {place}", "{b} under {a} {place}"),
    ("{A} and {B} {spot}", "{a} and {b} {spot}", "there is {a} and {b} {spot}"),
    ("{A} above {B} {place}", "{B} below {A} {place}", "{B} under {A} {spot}"),
    ("{scenery} with {A} and {B}", "{scenery} with {b} and {a}", "{scenery} with {a} and {b}"),
    ("{s} above {t} {spot}", "{t} below {s} {spot}", "{a} at the top and {b} at the bottom"),
)
_TEMPLATES = {"single": _SINGLE, "beside": _BESIDE, "stacked": _STACKED}
# For the slots whose sentences were all too long or said already.
_SPARE_SINGLE = ("{a} {spot}", "{a} alone {place}", "one photo of {a} {spot}", "one photo of {a} {place}")
_SPARE_PAIR = ("{a} and {b} {place}", "{b} and {a} {place}", "{b} and {a} {spot}", "{a} and {b} {spot}")


def with_article(noun: str, size: str = "") -> str:
    """Put the size and the right indefinite article before a noun phrase: ``an apple``, ``a small apple``."""
    phrase = f"{size} {noun}" if size else noun
    vowel = phrase[0] in "aeiou" and not phrase.startswith(("uni", "ufo"))
    return f"{'an' if vowel else 'a'} {phrase}"


def _synonym(thing: SceneObject) -> str:
    return thing.synonyms[0] if thing.synonyms else thing.noun


def describe(scene: Scene) -> tuple[str, ...]:
    """Describe a scene in five or more sentences.

    Parameters
    ----------
    scene : Scene

    Returns
    -------
    tuple of str
        Lower-case sentences of 5 to 16 words without a full stop, all different and all true. The wording
        depends on the scene's `Scene.key` alone.
    """
    place = background(scene.background)
    words = {"place": place.phrases[0], "spot": place.phrases[1], "scenery": place.scenery}
    words["where"] = _WHERE.get(scene.position, "")
    letters = (("a", "A", "s"), ("b", "B", "t"))
    for (plain, sized, other), placement, size in zip(letters, scene.placements, scene.sizes, strict=False):
        noun = placement.object.noun
        words[plain] = with_article(noun)
        words[sized] = with_article(noun, size)
        words[other] = with_article(_synonym(placement.object))
    choice = hashlib.sha256(f"captions {scene.key}".encode()).digest()
    spare = _SPARE_SINGLE if scene.arrangement == "single" else _SPARE_PAIR
    captions: list[str] = []
    for slot, templates in enumerate(_TEMPLATES[scene.arrangement]):
        start = choice[slot] % len(templates)
        for template in (*templates[start:], *templates[:start], *spare):
            if "{where}" in template and not words["where"]:
                continue
            caption = template.format_map(words)
            if caption not in captions and MINIMUM_WORDS <= len(caption.split()) <= MAXIMUM_WORDS:
                captions.append(caption)
                break
    return tuple(captions)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """Return every word that any caption can contain, sorted."""
    phrases = ["a", "an", "small", "large", *_WHERE.values()]
    for name in BACKGROUNDS:
        phrases += [*background(name).phrases, background(name).scenery]
    for thing in load_catalogue():
        phrases += [thing.noun, *thing.synonyms]
    for templates in _TEMPLATES.values():
        for group in templates:
            phrases += group
    phrases += [*_SPARE_SINGLE, *_SPARE_PAIR]
    return tuple(sorted({word for phrase in phrases for word in phrase.split() if "{" not in word}))
