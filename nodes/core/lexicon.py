"""Small word lists that tell places, frames, styles and attributes from things, in lower case."""

from __future__ import annotations

from .grammar import words

# Where the picture plays: scenes even without a preposition in front.
SETTINGS = words(
    """
    beach shore seashore coast coastline seaside sand sands ocean sea lake river stream creek pond waterfall lagoon
    bay harbor harbour marina port dock pier fjord swamp marsh wetland reef underwater water waters canal forest
    forests wood woods jungle rainforest grove glade clearing bush thicket orchard vineyard desert dune dunes oasis
    savanna savannah prairie plain plains steppe tundra meadow meadows pasture field fields farm farmland countryside
    grass grassland lawn garden gardens yard backyard courtyard park parks playground zoo campsite hill hills hillside
    hilltop mountain mountains mountainside valley valleys canyon cliff cliffs gorge cave cavern volcano glacier
    iceberg ice snow peak peaks summit ridge slope outcrop island islands peninsula arctic antarctica sky skies cloud
    clouds space galaxy universe planet heaven hell horizon cosmos nebula city cities town village downtown street
    streets road roads highway freeway motorway sidewalk pavement alley alleyway avenue boulevard path trail lane
    crosswalk intersection crossroads driveway suburb neighborhood neighbourhood square plaza market marketplace mall
    bazaar slum metropolis skyline cityscape seascape scenery landscape wilderness nature world kingdom earth ruins
    battlefield graveyard cemetery wasteland airport runway tarmac station platform subway tracks railway railroad
    tunnel garage hangar parking room bedroom bathroom kitchen livingroom ballroom classroom courtroom dungeon cellar
    basement attic hallway corridor hall lobby office laboratory lab library studio workshop factory warehouse gym
    restaurant cafe café diner bar pub saloon tavern bakery shop store supermarket bookstore salon casino nightclub
    club crypt tomb camp hospital clinic school university campus museum gallery theater theatre cinema stadium arena
    court pool spa greenhouse barnyard stage ramp indoors outdoors outside interior surface study track aquarium
    amphitheater monastery paris london rome vienna tokyo kyoto york manhattan venice berlin amsterdam holland japan
    china india egypt africa europe america morocco bangkok istanbul moscow sahara himalayas alps mars venus
    disneyland hogwarts california hawaii texas iceland norway scotland ireland spain italy france germany greece
    """
)
# Buildings and what stands in them: a scene in a list of tags, or where a preposition puts something there.
FIXTURES = words(
    """
    house houses home castle palace mansion temple church cathedral mosque shrine barn shed hut tent building
    buildings bridge mill fortress roof rooftop balcony porch terrace patio deck bench window windowsill doorway door
    staircase stairs floor ceiling counter shelf table desk bed sofa couch fireplace hearth wall walls branch trees
    greenhouse
    """
)
# Things that are scenes only where a preposition puts something there.
SUPPORTS = words(
    """
    cottage cabin tower skyscraper lighthouse windmill fence ladder chair carpet rug mat mantel tree branches bushes
    flower flowers nest rock rocks stone boulder boat ship train bus car truck airplane plane submarine spaceship dome
    cage box basket bowl puddle fountain statue grasses reeds waves wave storm fog mist air ground crater trench
    container throne moon
    """
)
STRUCTURES = FIXTURES | SUPPORTS
_PLACE_SUFFIXES = ("room", "yard", "scape", "shore", "side", "land", "way", "field", "ground", "park", "town", "ville")
_NO_PLACES = words(
    """
    mushroom broom groom bridegroom garland inside outside beside anyway
    """
)
# Heads of "... of X" that say how many, which part or what kind of picture; X is what is meant.
COLLECTIVES = words(
    """
    group groups pair couple herd flock crowd bunch pile stack row line lots lot set series swarm pack school team
    number dozen dozens caravan hundreds thousands handful variety collection cluster piece slice kind type sort bit
    litter trio
    """
)
PARTS = words(
    """
    top side sides middle center centre edge edges front back bottom corner corners heart end base foot foreground
    background distance left right rest bank banks outskirts entrance depths midst inside outside part
    """
)
FRAMES = words(
    """
    photo photos photograph photographs picture pictures image images painting paintings drawing drawings portrait
    portraits sketch illustration illustrations canvas render rendering shot view closeup close-up scene artwork art
    selfie depiction snapshot screenshot poster wallpaper print watercolor watercolour cartoon comic engraving mural
    video shape form footage frame still photography concept
    """
)
FAR = words(
    """
    background distance foreground backdrop
    """
)
TIMES = words(
    """
    night nighttime day daytime morning evening afternoon noon midnight dawn dusk sunset sunrise twilight winter
    summer autumn fall spring season hour hours year years century time times moment today tonight weather rain wind
    breeze halloween christmas midday daylight rush
    """
)
COLOURS = words(
    """
    red green blue yellow orange purple pink brown black white gray grey gold silver violet cyan magenta beige
    turquoise
    """
)
STYLES = words(
    """
    style styles watercolor watercolour oil pastel charcoal ink pencil acrylic monochrome sepia grayscale technicolor
    masterpiece quality resolution detail details highres absurdres hdr uhd hd dslr bokeh lighting light sunlight
    moonlight candlelight spotlight backlight rays ray shadows shadow reflection reflections glow blur grain focus
    depth lens angle composition perspective exposure contrast photography photorealism realism render engine unreal
    octane artstation deviantart pixiv trending award winner background foreground close-up closeup shot view concept
    design fantasy sci-fi scifi horror grunge cyberpunk steampunk vaporwave anime manga ghibli cinema4d vray wallpaper
    illustration photo photograph painting drawing sketch artwork art portrait halftone viewer humans score source
    rating nsfw sfw epic western cinematic texture textures color colors colour colours tone tones mood atmosphere
    vibe aesthetic scenery k mm px fps geographic macro
    neon photorealistic hyperrealistic
    """
)
# Painters and illustrators whose names are styles in prompts.
ARTISTS = words(
    """
    rutkowski artgerm mucha wlop beksinski giger monet gogh picasso dali rembrandt vermeer klimt hokusai hiroshige
    miyazaki warhol banksy escher bosch caravaggio turner matisse cezanne cézanne munch dürer durer botticelli
    michelangelo raphael degas renoir manet kahlo hopper magritte miro kandinsky frazetta moebius bierstadt kinkade
    shinkai loish sakimichan mondrian basquiat pollock lichtenstein dore doré blake sargent waterhouse repin
    """
)
# Parts of a body, clothes and poses: attributes in a list of tags.
ATTRIBUTES = words(
    """
    hair eyes eye smile face skin freckles beard lips nose ears ear hands hand legs leg arms arm body breasts tail
    wings expression pose sitting standing looking blush bangs ponytail braid twintails makeup solo sweat wet wind
    breeze dress kimono uniform outfit bikini armor armour gown skirt shirt jacket coat hat cap shoes boots gloves
    scarf socks swimsuit hoodie jeans pants suit ribbon necklace earrings glasses headscarf tails leaves blossoms
    steam dust sparkles flames fire particles light lights stars clothes cloak robe storm fog mist waves smoke rainbow
    """
)
CLOTHES = words(
    """
    dress suit tie shirt skirt jacket coat hat cap kimono uniform outfit bikini armor armour gown robe cloak apron
    raincoat jeans pants shoes boots gloves scarf swimsuit hoodie sweater costume glasses sunglasses mask helmet
    tuxedo clothes clothing shorts vest sari turban tutu pajamas
    """
)
BODY = words(
    """
    hand hands mouth back shoulder shoulders head lap arm arms leg legs face eye eyes hair ear ears neck foot feet
    finger fingers lips beak paw paws teeth chest tail wing wings belly
    """
)
# Nouns that name nothing one could point at.
ABSTRACT = words(
    """
    wonder sale love joy peace fear awe silence harmony motion way life style use detail trick effect order addition
    game work fun action concept idea mood atmosphere feeling lot thing things front sight mid traffic reference view
    today wait need want please attention danger
    """
)
# "looks at X", "dressed in X", "covered in X", "made of X": the preposition belongs to the verb, X is no place.
NO_PLACE_AFTER = words(
    """
    look looks looking looked stare stares staring gaze gazes gazing laugh laughs laughing wave waves waving aim aims
    aiming point points pointing spell dressed clad covered wrapped bathed drenched coated shout shouts shouting
    cloaked talking talks talk decorated engulfed howl howls howling bark barks barking smile smiles smiling glare
    glares
    """
)
# Verbs whose object is the place.
PLACE_VERBS = words(
    """
    cross crosses crossing enter enters entering leave leaves leaving explore explores exploring overlook overlooks
    overlooking climb climbs climbing roam roams roaming visit visits visiting inhabit inhabits reach reaches
    """
)


def is_setting(word: str) -> bool:
    """Return whether a lower-case noun names a place in its own right (beach, hillside, ballroom)."""
    return word in SETTINGS or (
        word not in STRUCTURES
        and word not in _NO_PLACES
        and any(word.endswith(suffix) and len(word) > len(suffix) + 2 for suffix in _PLACE_SUFFIXES)
    )
