"""Small word lists, in lower case: what a preposition or "of" does to a phrase, and where prompts use a noun otherwise
than the texts that WordNet counted (`meaning`)."""

from __future__ import annotations

from .grammar import words

# Heads of "... of X" that say how many, which part or what kind of picture; X is what is meant.
COLLECTIVES = words(
    """
    group groups pair couple herd flock crowd bunch pile stack row rows line lots lot set series swarm pack school team
    number dozen dozens caravan hundreds thousands handful variety collection cluster piece slice kind type sort bit
    litter trio array coil family
    """
)
INTERIORS = words("interior inside exterior outside")
PARTS = INTERIORS | words(
    """
    top side sides middle center centre edge edges front back bottom corner corners heart end base foot foreground
    background distance left right rest bank banks outskirts entrance depths midst part shade
    """
)
FRAMES = words(
    """
    photo photos photograph photographs picture pictures image images painting paintings drawing drawings portrait
    portraits sketch illustration illustrations canvas render rendering shot view closeup close-up scene artwork art
    selfie depiction snapshot screenshot poster wallpaper print watercolor watercolour cartoon comic engraving mural
    video shape form footage frame still photography concept icon sticker logo design diagram blueprint model macro
    perspective profile collage sheet asset polaroid lithograph woodcut etching linocut fresco tapestry cover page
    advertisement advert silhouette tattoo badge emblem stencil graffiti diorama cosplay caricature doodle mockup
    section
    """
)
# "an owl portrait" shows an owl, "wildlife photography" no wildlife.
GENRES = words("wildlife drone pet fan character hero animal fashion people family street person model artist")
FAR = words("background distance foreground backdrop")
# "looks at X": what somebody turns to is no place.
AIMED = words(
    """
    look looks looking looked stare stares staring gaze gazes gazing laugh laughs laughing wave waves waving aim aims
    aiming point points pointing spell shout shouts shouting talking talks talk howl howls howling bark barks barking
    smile smiles smiling glare glares
    """
)
# "dressed in X", "covered in X", "made of X": what something wears or is full of is no place.
CLAD = words("dressed clad covered wrapped bathed drenched coated cloaked decorated engulfed")
# "kicks up stones": with these, up and down are part of the verb and what follows is no place.
PARTICLE_VERBS = words(
    """
    hold holds holding kick kicks kicking pick picks picking lift lifts lifting light lights lighting put puts putting
    take takes taking throw throws throwing blow blows blowing pull pulls pulling open opens opening set sets setting
    """
)
# "trending on artstation": what follows is a place on the internet.
SHOWN = words("trending featured posted published")
# Verbs whose object is the place.
PLACE_VERBS = words(
    """
    cross crosses crossing enter enters entering leave leaves leaving explore explores exploring overlook overlooks
    overlooking climb climbs climbing roam roams roaming visit visits visiting inhabit inhabits reach reaches
    """
)
# Kind -> words of which prompts mean something else than the table says, or that it does not have.
KINDS = {
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


def ends_like_style(word: str) -> bool:
    """Return whether a word that is no other kind ends like one for a style (cottagecore, dadaism)."""
    return word.endswith(_STYLE_SUFFIXES) and len(word) > 5 and word not in _NO_STYLES


def ends_like_place(word: str) -> bool:
    """Return whether a word that no list knows ends like one for a place (skatepark, mistland)."""
    return any(word.endswith(suffix) and len(word) > len(suffix) + 2 for suffix in _PLACE_SUFFIXES)
