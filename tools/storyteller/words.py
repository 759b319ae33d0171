"""The storyteller's words: who can be in a story, and what, and where.

Plain data. The grammar checks nothing here, so whoever adds a word keeps to the
column's rule, which its comment states; the tests walk every entry.
"""
# ruff: noqa: SIM905 - long lists of words read best as text

from __future__ import annotations

from typing import NamedTuple

Limb = str  # singular: "paw"; the plural takes an s


class Place(NamedTuple):
    """Somewhere a hero lives. `preposition` + " the " + `noun` is where things happen."""

    preposition: str
    noun: str
    adjectives: tuple[str, ...]
    spots: tuple[str, ...]  # where a lost thing can lie, or someone sit


class Trait(NamedTuple):
    """What a hero is like. `group` picks endings: good, shy, low (a failing), size, plain."""

    group: str
    line: str  # a sentence that shows it, in the notation of plots.txt


GIRL_NAMES = (
    "Lily Mia Anna Rosie Clara Emma Nora Ella Lucy Ruby Ivy Zoe Molly Alice Sofia Hazel Daisy Maya "
    "Greta Ada Lena Holly Penny Stella Wanda Tilly Flora Iris June Lola Nina Olive Poppy Saskia Vera"
).split()
BOY_NAMES = (
    "Tom Ben Max Leo Sam Jack Finn Oscar Theo Henry Felix Noah Hugo Jonas Milo Otto Peter Paul Emil "
    "Toby Simon Victor Walter Arthur Bruno Charlie David Eddie Frank George Harry Ivan Kasper Luke Oliver"
).split()
HE_ANIMAL_NAMES = (
    "Rusty Barnaby Pip Bramble Fern Scout Copper Ziggy Bolt Biscuit Basil Rolo Chester Digby Ferdinand "
    "Gus Hopper Jasper Kip Monty Nibbles Patch Quill Rufus Sprout Tuck Waffles Winston Bobo Fluff Moss"
).split()
SHE_ANIMAL_NAMES = (
    "Clover Willow Pearl Luna Honey Misty Pepper Bella Dot Ginger Juniper Maple Nutmeg Petal Robin Snowdrop "
    "Tansy Velvet Whisper Blossom Cherry Dora Goldie Kiki Minnie Olivia Pippa Sunny Twinkle Bee"
).split()

# (noun, pronoun or "" for either); people use GIRL_NAMES and BOY_NAMES
PEOPLE = (
    ("girl", "she"),
    ("girl", "she"),
    ("girl", "she"),
    ("boy", "he"),
    ("boy", "he"),
    ("boy", "he"),
    ("princess", "she"),
    ("prince", "he"),
    ("queen", "she"),
    ("king", "he"),
    ("farmer", ""),
    ("baker", ""),
    ("sailor", ""),
    ("shepherd", ""),
    ("painter", ""),
    ("knight", ""),
    ("pirate", ""),
    ("wizard", "he"),
    ("witch", "she"),
    ("fairy", "she"),
    ("elf", ""),
    ("giant", ""),
    ("gardener", ""),
    ("miller", ""),
    ("astronaut", ""),
    ("teacher", ""),
    ("robot", ""),
    ("ghost", ""),
    ("snowman", "he"),
    ("clown", ""),
    ("mermaid", "she"),
    ("troll", ""),
    ("dwarf", ""),
)
ANIMALS = {
    "paw": (
        "fox rabbit mouse bear hedgehog squirrel cat dog puppy kitten badger raccoon wolf lion tiger otter "
        "beaver monkey panda mole bunny hamster hare koala leopard dragon"
    ).split(),
    "hoof": "lamb pony goat deer horse donkey cow pig sheep unicorn zebra giraffe camel".split(),
    "wing": (
        "owl duck sparrow crow robin penguin parrot swan goose hen rooster bee ladybug butterfly bat "
        "duckling chick eagle"
    ).split(),
    "foot": (
        "frog turtle elephant snail tortoise crab dinosaur mammoth monster spider ant caterpillar crocodile "
        "hippo lizard kangaroo"
    ).split(),
    "fin": "fish whale dolphin octopus".split(),
}
ELDERS = (
    *(
        f"the old {noun}"
        for noun in "tortoise owl miller raven gardener goat baker badger toad shepherd".split()
    ),
    "the wise owl",
    "the village baker",
    "the grey heron",
    "the lighthouse keeper",
    "the night watchman",
)

TRAITS = {
    "brave": Trait("good", "{He} was not afraid of [the dark|thunder|wild storms|anything]."),
    "kind": Trait("good", "{He} always had a kind word for [everyone|others]."),
    "curious": Trait(
        "good", "{He} always wanted to know [why the wind blows|where the river goes|how things work]."
    ),
    "clever": Trait("good", "{He} could [solve any riddle|find an answer to every question]."),
    "gentle": Trait("good", "{He} [never hurt anyone|spoke softly and walked softly]."),
    "cheerful": Trait("good", "{He} sang from morning until night."),
    "honest": Trait("good", "{He} [had never told a lie|always told the truth]."),
    "helpful": Trait("good", "Whenever someone needed help, {he} was there."),
    "patient": Trait("good", "{He} could wait for a long time without saying a word."),
    "wise": Trait("good", "Many came to {him} to ask for advice."),
    "friendly": Trait("good", "{He} said hello to [everyone|each bird and each flower]."),
    "generous": Trait("good", "{He} liked to give [presents|things away] more than to get them."),
    "bold": Trait("good", "{He} was always the first to try something new."),
    "fearless": Trait("good", "Nothing in the world could frighten {him}."),
    "playful": Trait("good", "{He} could turn anything into a game."),
    "funny": Trait("good", "{He} could make everyone laugh."),
    "adventurous": Trait("good", "{He} dreamed of faraway lands and great adventures."),
    "polite": Trait("good", "{He} always said please and thank you."),
    "shy": Trait("shy", "{He} hid [behind a tree|in a corner] whenever someone said hello."),
    "timid": Trait("shy", "{He} jumped at every [sound|shadow]."),
    "lonely": Trait("shy", "Nobody ever came to visit {him}."),
    "quiet": Trait("shy", "{He} spoke so softly that nobody heard {him}."),
    "sad": Trait("shy", "Nobody had seen {him} smile for a long time."),
    "nervous": Trait("shy", "{He} worried about [everything|big things and small things]."),
    "lazy": Trait("low", "{He} liked to lie in the sun and let others do the work."),
    "grumpy": Trait(
        "low", "{He} [never said good morning|complained about the rain, and about the sun too]."
    ),
    "proud": Trait("low", "{He} thought that nobody was as good as {he} was."),
    "greedy": Trait("low", "{He} always wanted more than {he} had."),
    "selfish": Trait("low", "{He} kept everything for {himself}."),
    "stubborn": Trait("low", "When {he} had made up {his} mind, nobody could change it."),
    "naughty": Trait("low", "{He} liked to play tricks on others."),
    "impatient": Trait("low", "{He} could not wait for anything."),
    "clumsy": Trait("low", "{He} tripped over {his} own feet [every day|all the time]."),
    "tiny": Trait("size", "{He} was so tiny that {he} could sleep in a [teacup|walnut shell]."),
    "small": Trait("size", "{He} was the smallest of all, and often nobody saw {him}."),
    "little": Trait("size", "{He} was the smallest of [them all|all {his} friends]."),
    "young": Trait("plain", "{He} still had a lot to learn."),
    "old": Trait("plain", "{He} had seen many summers and many winters."),
    "happy": Trait("plain", "{He} [smiled|whistled] all day long."),
    "hungry": Trait("plain", "{He} could eat a whole pot of soup and still ask for more."),
    "sleepy": Trait("plain", "{He} could fall asleep anywhere, even standing up."),
    "silly": Trait("plain", "{He} wore {his} hat upside down and laughed about it."),
    "magical": Trait("plain", "When {he} laughed, little sparks flew through the air."),
    "beautiful": Trait("plain", "But {he} did not care much about mirrors."),
    "poor": Trait("plain", "{He} did not have much, but {he} was content."),
    "rich": Trait("plain", "{He} had everything that money can buy."),
    "fast": Trait("plain", "{He} could run faster than the wind."),
    "slow": Trait("plain", "{He} never hurried, not even when it rained."),
    "strong": Trait("plain", "{He} could lift [a heavy log|a big rock] all by {himself}."),
    "fluffy": Trait("plain", "Everyone wanted to hug {him}."),
    "red": Trait("plain", "There was nobody else of that colour for miles around."),
    "white": Trait("plain", "In winter, {he} could hardly be seen in the snow."),
    "blue": Trait("plain", "There was nobody else of that colour for miles around."),
    "purple": Trait("plain", "There was nobody else of that colour for miles around."),
    "green": Trait("plain", "In the grass, {he} could hardly be seen."),
    "big": Trait("plain", "When {he} walked, the ground shook a little."),
}
FRIEND_ADJECTIVES = "friendly cheerful kind young old small big grey brown clever gentle quiet wise".split()
NEVER_LITTLE = frozenset(  # traits that "little" or "young" can't follow
    "little young old small big tiny red white blue purple green".split()
)

THINGS = {  # adjectives that suit it; "light" things fly off, "round" ones roll
    "light": "kite balloon feather hat scarf ribbon letter umbrella picture cap paper_boat flag shawl".split(),
    "round": "ball marble button coin ring pebble top hoop bead pearl drum apple".split(),
    "": (
        "lantern key bell book shell flute doll whistle basket cup clock spoon necklace blanket teddy_bear "
        "compass candle mirror toy_boat paintbrush violin wooden_horse stone crown lamp box watch mitten boot"
    ).split(),
}
COLORS = tuple("red blue green yellow white purple golden silver orange pink".split())
THING_ADJECTIVES = tuple("small old pretty shiny tiny new beautiful strange magic special little".split())

FOODS = tuple(
    (
        "berries nuts apples pears cookies pancakes muffins plums carrots cherries strawberries dumplings "
        "raspberries buns peaches"
    ).split()
)

PLACES = (
    Place("in", "forest", ("quiet", "deep", "green", "dark", "big"), ("under a fern", "behind a fallen log", "between the roots of an old oak")),
    Place("in", "meadow", ("sunny", "wide", "green"), ("in the tall grass", "under a patch of clover", "behind a big stone")),
    Place("in", "village", ("small", "quiet", "little"), ("behind the well", "under a cart", "on the steps of the old mill")),
    Place("in", "garden", ("big", "sunny", "wild", "secret"), ("under a rose bush", "between the cabbages", "behind the watering can")),
    Place("in", "valley", ("green", "hidden", "quiet"), ("behind a big rock", "beside the stream", "under a willow")),
    Place("on", "farm", ("small", "busy", "old"), ("in the hay", "behind the barn", "beside the water trough")),
    Place("on", "island", ("small", "green", "faraway"), ("behind a palm tree", "in the warm sand", "between two rocks")),
    Place("by", "river", ("wide", "quiet", "slow"), ("among the reeds", "under the old bridge", "on a flat stone")),
    Place("by", "sea", ("blue", "wide", "deep"), ("in the white sand", "between two rocks", "under an old boat")),
    Place("by", "lake", ("clear", "deep", "blue"), ("among the reeds", "under a willow", "beside an old boat")),
    Place("by", "pond", ("little", "quiet", "green"), ("among the reeds", "on a lily pad", "behind a mossy stone")),
    Place("in", "mountains", ("high", "snowy", "blue"), ("in a small cave", "behind a big rock", "under a crooked pine")),
    Place("on", "hill", ("green", "high", "windy"), ("under an apple tree", "behind a big rock", "in the heather")),
    Place("in", "town", ("busy", "old", "little"), ("behind the fountain", "under a bench", "in front of the bakery")),
    Place("in", "castle", ("old", "great", "tall"), ("behind a heavy curtain", "under the stairs", "in a dusty corner")),
    Place("in", "jungle", ("green", "warm", "deep"), ("under a giant leaf", "between two vines", "behind a hollow tree")),
    Place("in", "city", ("big", "bright", "noisy"), ("under a park bench", "beside the fountain", "behind a newspaper stand")),
    Place("in", "desert", ("wide", "hot", "quiet"), ("behind a sand dune", "beside the well", "in the shade of a rock")),
    Place("in", "swamp", ("misty", "green", "quiet"), ("among the reeds", "on an old log", "behind a mossy stone")),
    Place("on", "beach", ("sunny", "long", "quiet"), ("in the warm sand", "between two rocks", "under an old boat")),
    Place("in", "cave", ("deep", "dry", "hidden"), ("in a dark corner", "behind a big rock", "beside a clear spring")),
    Place("in", "palace", ("golden", "old", "great"), ("behind a heavy curtain", "under the stairs", "beside the fountain")),
    Place("on", "moon", ("bright", "silver", "quiet"), ("in the grey dust", "behind a big rock", "at the edge of a crater")),
    Place("at", "harbour", ("old", "busy", "little"), ("behind a barrel", "under a fishing net", "beside an old boat")),
)  # fmt: skip
DEFINITE_PLACES = frozenset({"mountains", "moon"})  # never "a mountains", "a moon"

PASTIMES = (
    "watch the clouds",
    "count the stars",
    "sing songs",
    "look for shells",
    "climb trees",
    "tell jokes",
    "pick flowers",
    "listen to the rain",
    "play hide and seek",
    "dance in the rain",
    "collect stones",
    "bake cakes",
    "build little boats",
    "tell stories",
    "splash in the water",
    "draw pictures",
    "chase butterflies",
    "listen to the birds",
)

# Requests may name anything; a hero can be one of these, so that copying is learned and not a list.
UNUSUAL_HEROES = (
    "cactus teapot pumpkin toaster cloud train truck tractor balloon star moon tree potato cupcake pencil "
    "scarecrow doctor nurse chef detective inventor musician explorer scientist ninja cowboy viking captain "
    "spaceship computer alien goblin phoenix griffin yeti hedgehog llama walrus seal moose buffalo ferret "
    "chipmunk gecko jellyfish lobster seahorse starfish flamingo ostrich toucan firefly grasshopper cricket"
).split()
SYLLABLES = "bo zim ka lu per ro ti mon fla gri nu sor vel dra pi qua tex jo wum lin shi ber ny dok".split()

# Plots that suit a trait; the grammar takes one of them more often than not.
SUITS = {
    "brave": "rescue map mystery storm lantern",
    "bold": "rescue map mystery",
    "fearless": "rescue map storm",
    "adventurous": "map mystery lantern",
    "curious": "mystery map wish seed",
    "clever": "map storm rescue",
    "wise": "storm rescue",
    "kind": "rescue race share",
    "helpful": "rescue race storm lost",
    "generous": "race share rescue",
    "gentle": "rescue seed newfriend",
    "patient": "seed learn",
    "impatient": "seed learn",
    "honest": "honest",
    "naughty": "honest wish",
    "clumsy": "learn honest",
    "shy": "newfriend fear learn",
    "timid": "fear newfriend",
    "nervous": "fear learn",
    "lonely": "newfriend birthday",
    "quiet": "newfriend learn",
    "sad": "newfriend birthday lost",
    "lazy": "learn storm",
    "grumpy": "newfriend rescue birthday",
    "proud": "race quarrel",
    "greedy": "share wish",
    "selfish": "share quarrel",
    "stubborn": "quarrel learn",
    "hungry": "share",
    "poor": "wish share seed",
    "fast": "race",
    "slow": "race",
    "tiny": "rescue fear",
    "small": "rescue fear",
}
