"""Word lists, all in lower case: first by part of speech, then by what a word does to the phrases around it."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


DETERMINERS = words(
    """
    a an the this that these those some any no every each another both all half several many few various multiple
    other its his her their my your our such what which whose numerous countless
    """
)
ARTICLES = words("a an the its his her their my our")
PRONOUNS = words(
    """
    i you he she it we they me him us them who whom someone somebody anyone everyone everything something nothing
    itself himself herself themselves myself yourself one's hers theirs everywhere there
    """
)
AUXILIARIES = words(
    """
    is are was were be been being am has have had do does did can could will would shall should may might must isn't
    aren't wasn't don't doesn't 's 're
    """
)
CONJUNCTIONS = words(
    """
    and or & plus nor but vs versus
    """
)
SUBORDINATORS = words(
    """
    while as when where because if that which who whose although until since so than how why
    """
)
NUMBERS = words(
    """
    one two three four five six seven eight nine ten eleven twelve dozen hundred thousand million first second third
    """
)
ADVERBS = words(
    """
    very not too also just only together apart away still slowly quickly alone almost quite really extremely more most
    less least so nearby outdoors indoors far closely forward backward backwards again already always never now then
    here there everywhere upside out asleep overhead underwater downstairs upstairs inwards outwards aside freshly
    recently softly once twice
    """
)
# Prepositions that can say where something is, then the others.
LOCATIVE_PREPOSITIONS = words(
    """
    on in at under near inside across above over behind beside besides below beneath underneath by through throughout
    along alongside around against among amongst amid amidst between beyond outside within onto into atop upon up down
    past from overlooking
    """
)
OTHER_PREPOSITIONS = words(
    """
    of with without for to towards toward like during about after before until via per except including featuring off
    out despite since showing wearing depicting
    """
)
PREPOSITIONS = LOCATIVE_PREPOSITIONS | OTHER_PREPOSITIONS
PLURALS = words(
    """
    people men women children kids sheep deer geese cattle fish mice police teeth feet wolves oxen fishermen
    """
)
# Plurals that do stand in front of another noun (a police officer, a sports car).
QUALIFYING_PLURALS = words("police fish sheep deer cattle sports women men clothes glasses")
# Nouns that are spelled like a verb or an adjective; prompts mean the noun.
NOUN_FORMS = words(
    """
    fries waves leaves flowers lights plants stars stairs glasses clothes clouds rocks horses dogs birds ducks fish
    houses trees woods hands eyes ears wings legs faces books boats ships cars trains trucks planes bikes buildings
    walls windows doors roads streets fields gardens parks mountains hills rivers seas sands stones grasses peppers
    noodles dunes roses lanterns candles torches curtains mirrors machines tracks ruins robots people children men
    women kids reeds pines peaks skeletons flames rays shadows reflections spices carpets tourists merchants commuters
    fans ice water snow sand grass rain wind fire smoke fog mist storm street road park garden lake beach forest
    desert city cat dog horse bird bear fox wolf lion tiger monkey duck man woman child boy girl baby king queen chair
    table bed sofa couch bench box book window door house tree flower rock stone field hill mountain river bridge
    train car bus truck boat ship plane airplane bicycle motorcycle umbrella hat dress suit coat camera piano guitar
    violin drum wizard knight witch robot pirate sailor farmer pilot doctor nurse chef waiter soldier sheep deer geese
    cattle skiers toast salad pizza cake bread cheese coffee tea wine beer food meal lunch dinner
    """
)
# Words that are adjectives in front of a noun and hardly ever anything else.
ADJECTIVE_FORMS = words(
    """
    old young new big small little large huge giant tiny tall short long wide narrow high low deep shallow thick thin
    hot cold warm cool wet dry clean dirty dusty sandy rocky snowy rainy sunny cloudy foggy misty stormy windy icy
    muddy grassy bright dark light heavy soft hard smooth rough sharp beautiful pretty ugly cute handsome majestic
    fluffy furry red green blue yellow orange purple pink brown black white gray grey golden silver colorful colourful
    wooden metal brick busy crowded quiet empty open abandoned ancient modern vintage antique rustic futuristic
    medieval enchanted magical fantastic happy sad angry calm lonely wild fresh full half clay live wise fast slow
    cozy cosy dim vivid moody gloomy epic dramatic cinematic intricate realistic aerial digital matte serene peaceful
    """
)
# Verbs of what people, animals and things do in pictures.
COMMON_VERBS = words(
    """
    sit sits sat sitting stand stands stood standing lie lies lay lying laying run runs ran running walk walks walked
    walking ride rides rode riding drive drives drove driving fly flies flew flying swim swims swam swimming play
    plays played playing jump jumps jumped jumping eat eats ate eating drink drinks drank drinking hold holds held
    holding carry carries carried carrying wear wears wore wearing sleep sleeps slept sleeping rest rests resting
    dance dances danced dancing sing sings singing climb climbs climbing float floats floating drift drifts drifting
    hover hovers hovering perch perches perched graze grazes grazing look looks looking watch watches watching stare
    stares gaze gazes read reads reading write writes paint paints cook cooks cooking pour pours pouring feed feeds
    feeding pull pulls pulling push pushes pushing throw throws throwing catch catches catching kick kicks kicking hit
    hits swing swings swinging serve serves serving cross crosses crossing leap leaps leaping crawl crawls crawling
    hang hangs hanging lean leans leaning rise rises rising fall falls falling land lands landing launch launches
    travel travels sail sails sailing surf surfs spin spins spinning cast casts casting cut cuts cutting blow blows
    blowing shine shines shining rage rages burn burns burning explore explores hide hides hiding wade wades trot
    trots gallop gallops wander wanders stir stirs kneel kneels rehearse rehearses gather gathers lead leads work
    works working repair repairs examine examines hammer hammers discover discovers speed speeds share shares attack
    attacks build builds chase chases flutter flutters tend tends cover covers surround surrounds form forms crash
    crashes overlook overlooks take takes taking make makes making do does show shows showing depict depicts see sees
    cheer cheers cheering juggle juggles water waters splash splashes hurry hurries call calls wave waves tie ties
    dock docks park parks parked docked covered filled surrounded lit left stuck curled tied made set seated lost
    sells sell buys buy fight fights soar soars howl howls bark barks bloom blooms grow grows circle circles dive
    dives slide slides roll rolls pose poses wait waits talk talks smile smiles laugh laughs cry cries argue argues
    fish fishes glide glides race races skate skates duel duels
    """
)
# Words that end in -ing or -ed but are not participles.
BASE_FORMS = words(
    """
    swing sing ring bring fling sling sting string spring wring cling king wing feed need bleed breed speed seed shed
    wed bed shred heed weed reed steed sled
    """
)
# Participles without -ed or -ing.
PARTICIPLES = words(
    "lit left made seen held built set worn drawn grown thrown torn hung bound cut split spread broken frozen bent"
)

# Heads of "... of X" that say how many, which part, or what kind of picture: the picture shows X.
COLLECTIVE_NOUNS = words(
    """
    group groups pair couple herd flock crowd bunch pile stack row rows line lots lot set series swarm pack school team
    number dozen dozens caravan hundreds thousands handful variety collection cluster piece slice kind type sort bit
    litter trio array coil family
    """
)
INTERIOR_NOUNS = words("interior inside exterior outside")
PART_NOUNS = INTERIOR_NOUNS | words(
    """
    top side sides middle center centre edge edges front back bottom corner corners heart end base foot foreground
    background distance left right rest bank banks outskirts entrance depths midst part shade
    """
)
PICTURE_NOUNS = words(
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
# "an owl portrait" shows an owl, but "wildlife photography" need not show wildlife.
GENRE_NOUNS = words("wildlife drone pet fan character hero animal fashion people family street person model artist")
BACKGROUND_NOUNS = words("background distance foreground backdrop")
# "looks at X": X is not the place where it happens.
DIRECTED_VERBS = words(
    """
    look looks looking looked stare stares staring gaze gazes gazing laugh laughs laughing wave waves waving aim aims
    aiming point points pointing spell shout shouts shouting talking talks talk howl howls howling bark barks barking
    smile smiles smiling glare glares
    """
)
# "dressed in X", "covered in X": X is clothing or a covering, not a place.
COVERING_VERBS = words("dressed clad covered wrapped bathed drenched coated cloaked decorated engulfed")
# "kicks up stones": with these, up and down are part of the verb, and what follows is not a place.
PARTICLE_VERBS = words(
    """
    hold holds holding kick kicks kicking pick picks picking lift lifts lifting light lights lighting put puts putting
    take takes taking throw throws throwing blow blows blowing pull pulls pulling open opens opening set sets setting
    """
)
# "trending on artstation": what follows is a place on the internet.
PUBLISHING_VERBS = words("trending featured posted published")
# Verbs whose object is the place.
PLACE_OBJECT_VERBS = words(
    """
    cross crosses crossing enter enters entering leave leaves leaving explore explores exploring overlook overlooks
    overlooking climb climbs climbing roam roams roaming visit visits visiting inhabit inhabits reach reaches
    """
)
