"""What a noun means: its kinds in WordNet, corrected where prompts use a word differently from WordNet's texts.

The table is made by `tests/tools/wordnet` and read on first use.
"""

from __future__ import annotations

import bz2
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from .word_forms import noun_stems, wordnet_nouns
from .word_lists import words

TABLE = Path(__file__).parent / "data" / "word_kinds.txt.bz2"
# In the table the character with this number stands for the first combination of kinds, the next one for the second.
FIRST = ord("!")
UNLISTED = " "
# The name of an animal can also mean what is made of it (otter, chicken, turtle); the picture shows the animal.
_MADE_OF_ANIMALS = frozenset({"clothing", "substance", "food", "place"})
# Kinds that no picture shows.
INVISIBLE = frozenset({"abstract", "medium", "time", "artist"})
# Kind -> words with which prompts mean something other than the table says, or which it lacks.
CORRECTIONS = {
    "place": words(
        """
        attic avenue basement cafe café casino cavern cellar cinema circus cityscape cloud club court diner dungeon
        earth fuji galaxy gallery garage grass greenhouse hangar hogwarts hold hospital ice indoors market mars
        megacity monastery nature nightclub office outcrop parking pavement pier planet platform pool pub railroad
        ramp restaurant ruin runway sand school snow square stage study surface tarmac tavern theater theatre track
        trees trench underwater university venus volcano water wood world york
        """
    ),
    "building": words(
        """
        bed bench ceiling church couch counter deck desk dome doorway fireplace floor hearth home mansion mill patio
        roof rooftop shelf sill sofa staircase stairs table terrace window windowsill
        """
    ),
    "natural": words("puddle"),
    "vehicle": words("airplane boat bus car helicopter plane ship spaceship submarine subway train truck"),
    "food": words("apple berry fruit grapes oranges pear strawberry"),
    "animal": words("beaver koi kraken labrador phoenix seal slug"),
    "thing": words(
        """
        basketball board bonfire campfire coil coin crystal egg fire fountain gem glass globe hybrid letter line map
        meal monitor mug newspaper pass pipe scroll set sign soccer street_light tea traffic_light trick tube tv
        wheelchair
        """
    ),
    "clothing": words(
        """
        armour bikini cape cloak collar frills glasses gloves haori heels helmet hoodie outfit scales skirt sleeves
        sunglasses thighhighs tutu
        """
    ),
    "body": words(
        """
        ahoge blossom blush breath expression freckles halo leaf makeup petal pose smile twintails wing
        """
    ),
    "weather": words("borealis ember particle rainbow sparkle trail wave"),
    "plant": words("branch plant"),
    "substance": words("feather silk wool"),
    "person": words(
        """
        android barista couple crowd family gamer ghost mage mech mecha orc people robot skeleton superhero
        """
    ),
    "artist": words(
        """
        artgerm banksy basquiat beksinski bierstadt cézanne disney dore doré dürer escher frazetta ghibli giger
        hiroshige hopper kahlo kinkade kubrick loish miro miyazaki moebius mucha nolan pixar pollock raphael repin
        rutkowski sakimichan shinkai turner waterhouse wlop
        """
    ),
    "medium": words(
        """
        2d 3d absurdres academia acrylic advertising aesthetic americana angle anime aperture arri artist artstation
        artwork asset atmosphere award backdrop background backlight baroque bauhaus behance blender bloom blur bokeh
        border brushstroke brushwork c4d camera candlelight canon caption cgi charcoal chibi cinema4d cinematic
        cinestill close-up closeup color colour commercial commons composition contrast cover crayon cubist cyberpunk
        daylight deco depth detail deviantart dieselpunk dof dotwork dribbble dslr editorial effect engine exposure
        expressionist fantasy film filmstill fisheye flare flickr focus foreground fps frame fujifilm fullhd game
        geographic glitch glow gopro gothic gouache gradient grain grayscale greyscale halftone hasselblad hd hdr
        highres hires horror hq hue humans hyperrealistic ilford illustration imax impasto impressionist ink iso k
        kawaii key kodak landscape leak leica lens lensflare light lighting lineart linework logo lowpoly macro
        magazine manga marvel masterpiece minimalist mm monochrome mood moonlight national neon nikon noir nouveau
        nsfw octane oil outline page palette panavision pastel pattern pencil perspective photorealism photorealistic
        pixel pixiv polaroid portra px quality rating raw ray realism realist redshift reference reflection
        renaissance render rendering resolution retrowave rococo scanline scenery scheme sci-fi scifi score sepia sfw
        shading shadow sheet shot shutter signature slr solarpunk solo sony source spotlight steampunk still style
        sunlight surrealist synthwave technicolor telephoto text texture theme tone trending typography uhd ukiyo-e
        unreal unsplash v-ray vaporwave vector vhs vibe view viewer vignette vintage vogue voxel vray wallpaper wash
        watercolor watercolour watermark winner zbrush zeiss
        """
    ),
    "abstract": words(
        """
        addition air blue bottom center centre crisp dark darkness front gray green grey left lot mid midair middle
        need orange please red right route side silver symmetry teal thing top traffic turquoise violet wait want
        white work
        """
    ),
    "time": words("breeze rain sunrise sunset twilight weather wind"),
}
_PLACE_SUFFIXES = ("room", "yard", "scape", "shore", "side", "land", "way", "field", "ground", "park", "town", "ville")
_STYLE_SUFFIXES = ("ism", "core", "punk", "wave", "esque", "lighting", "graphy", "lit", "hatching")
_NO_STYLES = words("shockwave heatwave")


def spelled_out(text: str) -> Iterator[str]:
    """The words of a list.

    Each has a capital letter before it that says how many letters it begins with are those of the word before it: A for
    none, B for one. The table is smaller so.
    """
    word = ""
    for shared, rest in re.findall("([A-Z])([^A-Z]*)", text):
        word = word[: ord(shared) - ord("A")] + rest
        yield word


def checksum(nouns: list[str]) -> str:
    """Return eight letters that tell one list of nouns from another."""
    return f"{zlib.crc32(' '.join(nouns).encode()):08x}"


def read_table(content: bytes, nouns: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of every listed word. nouns: `wordnet_nouns`, whose kinds the table lists without the words.

    Raises ImportError where the table is made for other nouns.
    """
    made_for, combinations, of_nouns, others, of_others = bz2.decompress(content).decode("utf-8").split("\n")
    if made_for != checksum(nouns):
        raise ImportError(
            "The installed spacy-lookups-data lists other English nouns than version 1.0.5, to which the pack's table "
            "of word kinds belongs. Install that version: python -m pip install spacy-lookups-data==1.0.5"
        )
    kinds = [tuple(names.split()) for names in combinations.split(";")]
    listed = zip([*nouns, *spelled_out(others)], of_nouns + of_others, strict=True)
    return {word: kinds[ord(number) - FIRST] for word, number in listed if number != UNLISTED}


@lru_cache(maxsize=1)
def _table() -> dict[str, tuple[str, ...]]:
    """The kinds of every listed word, as prompts use it."""
    table = read_table(TABLE.read_bytes(), wordnet_nouns())
    for kind, found in CORRECTIONS.items():
        table.update(dict.fromkeys(found, (kind,)))
    return table


@lru_cache(maxsize=1)
def _corrected_words() -> frozenset[str]:
    return frozenset().union(*CORRECTIONS.values())


@lru_cache(maxsize=4096)
def noun_kinds(word: str) -> tuple[str, ...]:
    """Return the kinds of a lower-case noun in singular or plural, the most frequent first; ("thing",) when unknown.

    Kinds: person, animal, thing, vehicle, building, support, place, natural, plant, food, group, body, clothing,
    weather, substance, artist, medium, time, abstract; see `data/README.md`.
    """
    table = _table()
    corrected = next((table[stem] for stem in (word, *noun_stems(word)) if stem in _corrected_words()), None)
    found = corrected or next((table[stem] for stem in noun_stems(word) if stem in table), None)
    if found is None and "-" in word:
        return noun_kinds(word.rpartition("-")[2])
    if found in (None, ("thing",), ("group",)) and _ends_like_style(word):
        return ("medium",)
    return found or (("place",) if _ends_like_place(word) else ("thing",))


@lru_cache(maxsize=4096)
def pictured_kind(word: str, before: str = "") -> str:
    """Return the one kind that a lower-case noun has in a picture: the first that can be seen, else its most frequent.

    before: the word before it in the phrase, since two words can mean something together (traffic light, still life).
    """
    found = noun_kinds(word)
    if before and found[0] in INVISIBLE:
        together = (_table().get(f"{before}_{stem}") for stem in noun_stems(word))
        found = next((each for each in together if each), found)
    seen = next((each for each in found if each not in INVISIBLE), found[0])
    return "animal" if seen in _MADE_OF_ANIMALS and "animal" in found else seen


def _ends_like_style(word: str) -> bool:
    """Return whether a word of no other kind ends like one for a style (cottagecore, dadaism)."""
    return word.endswith(_STYLE_SUFFIXES) and len(word) > 5 and word not in _NO_STYLES


def _ends_like_place(word: str) -> bool:
    """Return whether a word that no list knows ends like one for a place (skatepark, mistland)."""
    return any(word.endswith(suffix) and len(word) > len(suffix) + 2 for suffix in _PLACE_SUFFIXES)
