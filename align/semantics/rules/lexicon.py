"""Word lists of the rules: closed classes whole, open classes only where the spelling misleads."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words(
    "a an the this that these those some any each every its his her their my your our another all both no"
)
NUMBERS = _words(
    "one two three four five six seven eight nine ten eleven twelve dozen hundred several many multiple "
    "few numerous countless various"
)
PREPOSITIONS = _words(
    "in on at by with of from to into onto over under above below beneath underneath between behind beside "
    "besides near inside outside through throughout across along alongside against around round among amid "
    "during after before toward towards atop upon like as without within off past via per for about beyond "
    "next out up down while when where than overlooking featuring"
)
CONJUNCTIONS = _words("and or but & nor")
PRONOUNS = _words(
    "it he she they them him you i we us me who whom which whose what itself himself herself themselves "
    "there here everyone someone something nothing"
)
AUXILIARIES = _words(
    "is are was were be been being has have had do does did can could will would should may might must am "
    "looks look seems appears becomes"
)
ADVERBS = _words(
    "very quite too so not never always almost only just also together overhead outdoors indoors away "
    "back-to-back forward backward upwards downward outward inward well still then half again ultra super "
    "hyper more most less least upside apart aside"
)
LY_NOT_ADVERB = _words("dolly bully fluffly smelly heavenly rally bristly wobbly tally likely")
ADJECTIVES = _words(
    # colours
    "red orange green blue yellow purple pink black white brown grey gray violet turquoise teal cyan magenta beige "
    "crimson scarlet maroon navy golden silvery azure tan blond blonde brunette dark bright pale light "
    "pastel colored coloured multicolored multicoloured monochrome "
    # sizes and shapes
    "big small large tiny little huge giant gigantic enormous massive miniature tall short long wide narrow "
    "thick thin slim fat chubby deep shallow high low round square flat oval curved straight sharp steep "
    "full empty open closed mini grand vast "
    # age, state, quality
    "old young new ancient modern elderly adult fresh clean quick swift slow dry wet hot cold warm cool soft hard smooth rough "
    "quiet calm loud strong weak heavy wild tame cute pretty nice sweet good bad great beautiful gorgeous "
    "elegant handsome ugly evil holy sad angry fierce brave proud rich poor free real fake fine rare raw ripe "
    "rotten bald bare blank blind busy clear crisp crowded dead alive asleep awake drunk happy lazy sleepy "
    "scary funny crazy fancy tidy cozy cosy plain simple strange weird unknown abandoned vintage retro antique "
    "ruined intricate ornate adorable mature male female human asian african european american japanese "
    "chinese french italian english german indian russian korean viking victorian gothic baroque medieval "
    "western eastern northern southern urban rural suburban tropical arctic royal sacred alien robotic "
    "wooden woolen woollen metallic futuristic transparent translucent opaque "
    # in -y: most words in -y are no adjectives, so these are listed
    "shiny rusty dusty dirty muddy sandy rocky stony snowy icy rainy sunny cloudy windy stormy foggy misty "
    "hazy smoky grassy mossy leafy flowery furry fluffy hairy fuzzy curly wavy bushy spiky thorny spotty "
    "stripy wrinkly scaly slimy sticky greasy oily creamy juicy tasty spicy salty crispy crunchy cheesy bloody "
    "creepy spooky moody gloomy murky cheery merry jolly sleazy grumpy hungry thirsty sexy skinny bony curvy "
    "messy steamy starry glossy glassy silky velvety lacy comfy rosy ruddy lofty mighty noisy lucky worthy "
    "wealthy healthy filthy wintry earthy watery papery puffy stubby scruffy shaggy woolly pointy swanky "
    "dreamy ghostly friendly lovely lonely lively deadly early silly prickly sparkly cuddly chilly hilly "
    "bubbly ready cocky perky quirky smiley girly scrubby bulky husky grainy blurry frosty toasty"
)
"""Adjectives that their ending doesn't tell."""

NOUNS = _words(
    # in -ing
    "building string ceiling evening morning spring lightning clothing lighting thing sibling duckling pudding "
    "wedding swing sling dumpling earring railing awning sterling rigging bling icing stuffing frosting "
    "topping siding tubing filling sapling gosling seedling darling bowling parking beijing "
    # in -ed
    "steed shred watershed speed breed bobsled "
    # in -al, -ic, -ive, -able, -ous, -ful, -ant
    "animal metal crystal hospital festival cathedral coral petal pedestal portal terminal cereal mural "
    "capital medal sandal canal carnival jackal narwhal material official journal signal general arsenal "
    "bridal rival mineral chemical criminal individual professional music fabric mosaic picnic comic magic "
    "plastic mechanic clinic relic traffic attic classic mystic ceramic hydraulic panic topic public lyric "
    "critic olive drive detective archive captive locomotive table vegetable cable stable constable octopus "
    "circus walrus cactus bus handful spoonful radish varnish polish rubbish "
    # in -less, -some and others that endings would mislead
    "princess waitress mattress dress actress goddess lioness fortress glass grass cypress wilderness harness "
    # in -ly and -y
    "butterfly jelly belly family dragonfly firefly holly assembly"
)
"""Nouns whose ending looks like another class."""

ADJECTIVE_ENDINGS = ("ous", "ful", "less", "ish", "al", "ic", "ive", "able", "ible", "esque")
PARTICIPLES = _words(
    "made worn held broken frozen hidden woven drawn lit torn thrown built written sunlit moonlit candlelit "
    "grown known shown seen taken given driven fallen sunken molten swollen forgotten bitten beaten shaven "
    "spun hung clad bound wound bent cut caught set split upset sewn knit stolen dressed blown flown "
    "backlit dimly-lit well-lit"
)
AGENTS_ONLY = _words(
    "holding wearing carrying riding playing eating drinking reading writing looking staring smiling laughing "
    "sitting standing walking running dancing singing cooking making painting pouring chasing watching talking"
)
"""What somebody does, not somebody's hair."""

VERBS = _words(
    "sits sit stands stand holds hold wears wear runs walks hangs hang rides ride plays eats eat flies swims "
    "swim jumps jump stares stare gazes lies lie sleeps sleep rests floats float soars soar shines shine glows "
    "glow reflects reflect emerges emerge fights gives give says say reads read carries carry rises rise leans "
    "lean covers surrounds surround makes make puts put sells sell drinks drives flows grows grow serves serve "
    "contains contain shows show features fills overlooks engulfs approaches falls illuminates casts cast "
    "chases chase watches dances sings sing smiles laughs drapes blooms towers leads stretches wields displays "
    "depicts"
)
"""Finite verbs that are seldom nouns in prompts."""

MEDIA = _words(
    "photo photograph photography picture image painting drawing sketch illustration render rendering "
    "portrait art artwork shot snapshot watercolor watercolour poster wallpaper closeup close-up macro "
    "animation scene view footage still depiction engraving etching style woodcut lithograph cartoon collage "
    "clipart fresco doodle headshot selfie screenshot photorealism realism anime manga concept design print "
    "graphic gopro polaroid vector"
)
"""Words that say what kind of picture is wanted; objects only where a sentence treats them as such."""

QUALITY = _words(
    "masterpiece quality resolution artstation hd uhd 4k 8k 16k hdr octane unreal engine bokeh detail details "
    "deviantart cgsociety pixiv vray blender dslr nikon canon kodak fujifilm lens focus field-of-view"
)
"""Words about quality, never objects."""

RELATIONS = _words(
    "left right top front back side middle center centre bottom edge end rest midst sides distance foreground "
    "lot lots kind type variety number amount part parts way hand-in-hand air company depths interior exterior dark"
)
"""Nouns that say where something is, or how much: no objects between prepositions."""

ABSTRACT = _words(
    "possibility possibilities color colors colour colours feeling mood atmosphere vibe emotion beauty sense "
    "concept idea effect effects action pose perspective"
)
"""Nouns for what has no place of its own in a picture."""

PARTITIVES = _words(
    "slice slices piece pieces bunch bouquet stack stacks pile piles group groups pair pairs flock herd ball "
    "balls set row rows crowd collection swarm pack heap cluster school gang array couple handful"
)
"""Nouns that, with ``of``, describe what follows rather than being there beside it."""

TIMES = _words(
    "night day daytime nighttime morning evening sunset sunrise dawn dusk noon midnight midday afternoon "
    "twilight winter summer spring autumn fall moment time century hour"
)
"""Nouns that say when, after a preposition."""

NAMED_BOTH = _words(
    "orange gold silver light dark glass pink violet turquoise human alien viking male female square plastic "
    "giant adult cold blonde brunette robotic royal fat open wild pastel tan"
)
"""Adjectives that are nouns where no noun follows."""
