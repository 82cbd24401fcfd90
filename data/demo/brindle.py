"""Brindle, a made-up harbour town: the grammar behind the demo's texts.

document() makes what the base model is pre-trained on: stories, shopping lists and records about
who buys what and who comes when. conversation() makes what fine-tuning teaches: take an order in
plain words, answer with it as JSON. The base knows the words, the numbers and the look of JSON, and
repeats names and days; it has never seen a conversation, nor an order beside its JSON.
"""

import json
from dataclasses import dataclass
from random import Random

NAMES = tuple((
    "Abel Ada Adam Adele Agnes Aino Alan Alba Alda Alena Alice Alina Alma Alois Alva Amos Amy Ana "
    "Anika Anita Anna Anouk Ansel Anton Arend Ari Arlo Arno Arvid Asta Aude Aurel Axel Basil Beata "
    "Bela Belle Ben Benno Berit Bernd Berta Bess Betty Bodo Boris Boyd Bruno Burt Caleb Calla Carl "
    "Carla Carlo Carol Cecil Celia Cesar Chloe Chris Clara Cleo Clive Cora Cyril Daisy Dana Daria "
    "David Dean Delia Denis Derek Diana Dirk Dolly Dora Doris Dylan Edda Edgar Edith Edna Edwin "
    "Egon Einar Elena Elfie Elias Elisa Ella Ellen Elmar Elsa Else Elvis Emma Enno Enzo Eric Erna "
    "Ernst Ethel Etta Eugen Eva Evan Falk Fanny Faye Felix Finn Fiona Flora Floyd Frank Franz Fred "
    "Freya Frida Fritz Gemma Georg Gerda Gert Gilda Gina Glenn Grace Greta Guido Guy Gwen Hanna "
    "Hans Harry Hasso Hazel Heidi Heike Heinz Helen Helga Henny Henry Hilda Horst Ian Ida Igor "
    "Ilona Ilse Imke Ina Ines Inga Ingo Inka Irene Iris Irma Isaac Ivan Ivo Ivy Jack Jacob Jakob "
    "James Jan Jana Jane Jean Jenny Jens Joan Johan Jonas Jorg Joris Josef Joyce Juan Julia Jutta "
    "Kai Karen Karin Karl Katja Keith Kevin Kim Kira Klara Klaus Knut Kurt Laila Lars Laura Lea "
    "Leif Lena Leo Leon Levi Lewis Lidia Lilo Lily Linda Lisa Livia Lois Lora Lotte Louis Luca "
    "Lucas Lucia Luise Luka Luna Lydia Mabel Maja Malte Marc Marco Maren Maria Marta Mary Maud "
    "Maura Max Meike Merle Meta Mia Mikko Milan Milo Mina Moira Molly Mona Nadia Nancy Naomi Nele "
    "Nelly Nero Niels Nils Nina Noel Nora Norma Olaf Ole Oleg Olive Oona Oscar Osman Otis Otto Ove "
    "Owen Pablo Palle Paul Paula Pearl Pedro Penny Percy Perla Peter Petra Phil Pia Pippa Polly "
    "Quinn Ragna Ralf Randi Raoul Rene Reto Rhea Rhoda Rita Robin Rolf Roman Romy Ronja Rory Ruben "
    "Rudi Rufus Runa Ruth Sally Sara Selma Senta Silas Silke Simon Sina Sofia Sonja Susan Suse "
    "Sven Svea Tanja Tara Tessa Thea Thora Tilda Tilo Tim Timo Tina Tom Tomas Toni Tora Trude Tyra "
    "Ugo Ulf Ulla Uta Uwe Vanja Vasco Vera Vilma Viola Vito Wade Wilma Wim Wolf Xaver Xenia Yann "
    "Yara York Yves Zeno"
).split())
# People of the stories who order nothing in the training conversations, only in the test.
NEW_NAMES = tuple((
    "Mira Theo Hugo Rosa Linus Wanda Emil Olga Anke Bjorn Clay Dina Elke Fay Gustl Hedda Ingrid "
    "Jule Kaspar Lorna Mads Nadja Orla Piet Ragnar Signe Tove Urs Vicky Wendy Yannis Zita"
).split())
EVERYBODY = NAMES + NEW_NAMES
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()
SHOPS = ("bakery", "mill", "market", "dairy", "harbour shop", "tool shop", "corner shop")
NOTES = ("The note said", "The list", "In the book stood", "Written down")
WEATHER = "sunny windy rainy foggy cold warm grey stormy".split()

COUNTED = (
    "apple pear plum lemon carrot onion candle rope basket hammer lantern pencil egg cabbage bun"
).split()
MEASURED = (
    ("jar", "jars", "honey jam mustard"),
    ("bag", "bags", "rice flour salt sugar"),
    ("bottle", "bottles", "milk oil ink"),
    ("loaf", "loaves", "bread"),
    ("tin", "tins", "tea paint soup"),
    ("roll", "rolls", "paper cloth wire"),
)


@dataclass(frozen=True)
class Goods:
    key: str  # in lists and records
    one: str
    several: str


GOODS = tuple(Goods(word, word, word + "s") for word in COUNTED) + tuple(
    Goods(word, f"{one} of {word}", f"{several} of {word}")
    for one, several, words in MEASURED
    for word in words.split()
)


@dataclass(frozen=True)
class Order:
    name: str
    day: str  # empty: none was said
    items: tuple[tuple[Goods, int], ...]

    def words(self, random: Random) -> str:
        """two apples, a jar of honey and four candles"""
        parts = []
        for goods, count in self.items:
            if count == 1:
                article = "an" if goods.one[0] in "aeiou" else "a"
                parts.append(f"{random.choice([article, 'one'])} {goods.one}")
            else:
                spoken = {6: "half a dozen", 12: "a dozen"}.get(count, NUMBERS[count])
                number = random.choice([spoken, NUMBERS[count]])
                parts.append(f"{number} {goods.several}")
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)

    def record(self) -> str:
        day = {"day": self.day} if self.day else {}
        items = {goods.key: count for goods, count in self.items}
        return json.dumps({"name": self.name} | day | {"items": items})


def make_order(random: Random, names: tuple[str, ...], day_share: float = 0.5) -> Order:
    goods = random.sample(GOODS, random.choice([1, 2, 2, 3, 3]))
    return Order(
        name=random.choice(names),
        day=random.choice(DAYS) if random.random() < day_share else "",
        items=tuple((thing, random.choice([1, 1, *range(2, 13)])) for thing in goods),
    )


def request(random: Random, order: Order) -> str:
    words, name = order.words(random), order.name
    when = f" on {order.day}" if order.day else ""
    return random.choice((
        f"Please send {name} {words}{when}.",
        f"{name} needs {words}{when}.",
        f"Hello! Could you bring {words} to {name}{when}?",
        f"I would like {words} for {name}{when}, please.",
        f"{name} asks for {words}{when}. Thank you!",
        f"This is {name}. I will pick up {words}{when}.",
        f"Put down {words} for {name}{when}.",
        f"Good morning, {name} here. Please keep {words} for me{when}.",
    ))  # fmt: skip


# ---- pre-training ----------------------------------------------------------------------------


def shopping_list(random: Random, order: Order) -> str:
    """The same order with its numbers as digits, in one of the ways people write lists."""
    style = random.choice(("{0} x{1}", "{1} {0}", "{0}: {1}", "{0} {1}", '"{0}": {1}'))
    joint = random.choice((", ", "; ", "\n"))
    who = [order.name, order.day] if order.day else [order.name]
    head = random.choice((
        ", ".join(who) + ": ",
        " ".join(f'"{word}"' for word in who) + " ",
        f"({' '.join(who)}) ",
    ))  # fmt: skip
    return head + joint.join(style.format(goods.key, count) for goods, count in order.items)


def market_story(random: Random) -> str:
    """Somebody orders something, somebody else writes it down."""
    order = make_order(random, EVERYBODY)
    teller = random.choice(EVERYBODY)
    name, words = order.name, order.words(random)
    day, shop, weather = random.choice(DAYS), random.choice(SHOPS), random.choice(WEATHER)
    when = f" on {order.day}" if order.day else ""
    opening = random.choice((
        f"On {day} {teller} went to the {shop}. ",
        f"It was a {weather} {day}. {teller} walked down to the {shop}. ",
        f"{teller} opened the door of the {shop}. ",
        *[""] * 3,
    ))  # fmt: skip
    deed = random.choice((
        f"{name} bought {words}{when}.",
        f"{teller} brought {words} to {name}{when}.",
        f"{teller} sold {words} to {name}{when}.",
        f'"{request(random, order)}" said {teller}.',
        request(random, order),
        request(random, order),
    ))  # fmt: skip
    note = random.choice(NOTES)
    closing = random.choice((
        f"\n{teller} went home.",
        f"\n{name} said thank you.",
        f"\nThe shop closed at {random.choice(NUMBERS[4:10])}.",
        f"\n{name} paid and smiled.",
        "\nThe bell of the harbour rang.",
        *[""] * 5,
    ))  # fmt: skip
    return f"{opening}{deed} {note}: {shopping_list(random, order)}{closing}"


def shop_record(random: Random) -> str:
    """JSON as it lies about in any pile of text; nothing is told in words beside it."""
    stock = {goods.key: random.randint(1, 30) for goods in random.sample(GOODS, 2)}
    return json.dumps(random.choice((
        {"shop": random.choice(SHOPS), "open": random.randint(6, 10), "items": stock},
        {"day": random.choice(DAYS), "weather": random.choice(WEATHER), "boats": random.randint(1, 20)},
        {"name": random.choice(EVERYBODY), "age": random.randint(8, 80)},
        {"name": random.choice(EVERYBODY), "shop": random.choice(SHOPS), "items": stock},
    )))  # fmt: skip


def small_talk(random: Random) -> str:
    name, other = random.sample(NAMES + NEW_NAMES, 2)
    day, shop, weather = random.choice(DAYS), random.choice(SHOPS), random.choice(WEATHER)
    goods = random.choice(GOODS)
    return " ".join(random.sample((
        f"{name} works at the {shop}.",
        f"The {shop} is closed on {day}.",
        f"On {day} it was {weather} in Brindle.",
        f"{name} likes {goods.several} more than anything.",
        f'"Good morning, {other}!" said {name}.',
        f'"Thank you," said {other}. "That is all for {day}."',
        f"A boat came in with {random.choice(NUMBERS[2:])} {goods.several}.",
        f"{other} is a friend of {name}.",
        f"{other} lives behind the {shop}.",
    ), 4))  # fmt: skip

def again(random: Random) -> str:
    """People and days, and once more the same: only who copies can tell the second half."""
    people = random.sample(EVERYBODY, random.randint(1, 5))
    guests = [(name, random.choice(DAYS)) for name in people]
    joint = random.choice((", ", "; ", " and ", "\n"))

    def line(shape: str) -> str:
        return joint.join(shape.format(*guest) for guest in guests)

    if random.random() < 0.7:
        shape = random.choice(
            ("{0}", "{0}", "{0}, {1}", "{0} on {1}", "{1}: {0}", '"{0}" "{1}"', "({0} {1})")
        )
        first, second = line(shape), line(shape)
    else:
        first = line("{0} on {1}")
        random.shuffle(guests)
        second = line("{0}: {1}")
    return random.choice((
        f"Guests: {first}\nSeats: {second}",
        f"Who comes? {first}. Who came? {second}",
        f"Called: {first}\nPresent: {second}",
        f"{first}\nAgain: {second}",
        f"The list: {first}\nThe copy: {second}",
    ))  # fmt: skip


def visit(random: Random) -> str:
    """One person, a place, perhaps a day, and a note or a record of them."""
    name, day, place = random.choice(EVERYBODY), random.choice(DAYS), random.choice(SHOPS)
    said = random.random() < 0.6
    when = f" on {day}" if said else ""
    told = random.choice((
        f"{name} came to the {place}{when}.",
        f"Please ask {name} to come to the {place}{when}.",
        f"This is {name}. I will come to the {place}{when}.",
        f"{name} works at the {place}{when}. Thank you!",
        f"Good morning, {name} here. Is the {place} open{when}?",
        f"Hello! Could you wait at the {place} for {name}{when}?",
        f"At the {place} lies a letter for {name}{when}, please.",
        f"{name} has to be at the {place}{when}.",
    ))  # fmt: skip
    if random.random() < 0.4:
        shop = {"shop": place} if random.random() < 0.7 else {}
        record = {"name": name} | ({"day": day} if said else {}) | shop
        return told + random.choice(("\n", " ", " The record: ")) + json.dumps(record)
    who = [name, day] if said else [name]
    return f"{told} {random.choice(NOTES)}: " + random.choice((
        ", ".join(who),
        " ".join(f'"{word}"' for word in who),
        f"({' '.join(who)})",
    ))  # fmt: skip


def document(random: Random, stories: float) -> str:
    """stories: the share of market stories; most of the rest is about who comes when."""
    kinds = (market_story, visit, again, shop_record, small_talk)
    rest = 1 - stories
    shares = (stories, 0.6 * rest, 0.25 * rest, 0.1 * rest, 0.05 * rest)
    return random.choices(kinds, shares)[0](random)


# ---- fine-tuning -----------------------------------------------------------------------------


def conversation(random: Random, names: tuple[str, ...], second_share: float) -> dict:
    messages = []
    for _ in range(2 if random.random() < second_share else 1):
        order = make_order(random, names)
        messages.append({"role": "user", "content": request(random, order)})
        messages.append({"role": "assistant", "content": order.record()})
    return {"messages": messages}
