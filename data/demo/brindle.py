"""Brindle, a made-up harbour town: the grammar behind the demo's texts.

document() makes what the base model is pre-trained on: stories, shopping lists and records about
who buys what. conversation() makes what fine-tuning teaches: take an order in plain words, answer
with it as JSON. The base knows the words, the numbers and the look of JSON; it has never seen a
conversation, nor an order beside its JSON.
"""

import json
from dataclasses import dataclass
from random import Random

NAMES = tuple(
    "Ada Bela Cleo Dora Finn Greta Ida Jonas Karl Lena Milo Nora Otto Paula Quinn Sven Tilda Ugo Vera"
    " Wim Xenia Yara Zeno Anton Berta Carlo Delia Edgar Frida Georg Hanna Igor Julia Kim Marta Nils"
    " Peter Rita Simon Tom Ulla Viktor".split()
)
# People of the stories who order nothing in the training conversations, only in the test.
NEW_NAMES = tuple("Mira Theo Hugo Rosa Linus Wanda Emil Olga".split())
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()
SHOPS = ("bakery", "mill", "market", "dairy", "harbour shop", "tool shop", "corner shop")
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
    order = make_order(random, NAMES + NEW_NAMES)
    teller = random.choice(NAMES + NEW_NAMES)
    name, words = order.name, order.words(random)
    day, shop, weather = random.choice(DAYS), random.choice(SHOPS), random.choice(WEATHER)
    when = f" on {order.day}" if order.day else ""
    opening = random.choice((
        f"On {day} {teller} went to the {shop}. ",
        f"It was a {weather} {day}. {teller} walked down to the {shop}. ",
        f"{teller} opened the door of the {shop}. ",
        "",
    ))  # fmt: skip
    deed = random.choice((
        f"{name} bought {words}{when}.",
        f"{teller} brought {words} to {name}{when}.",
        f"{teller} sold {words} to {name}{when}.",
        f'"{request(random, order)}" said {teller}.',
        request(random, order),
        request(random, order),
    ))  # fmt: skip
    note = random.choice(("The note said", "The list", "In the book stood", "Written down"))
    closing = random.choice((
        f"\n{teller} went home.",
        f"\n{name} said thank you.",
        f"\nThe shop closed at {random.choice(NUMBERS[4:10])}.",
        f"\n{name} paid and smiled.",
        "\nThe bell of the harbour rang.",
        "",
    ))  # fmt: skip
    return f"{opening}{deed} {note}: {shopping_list(random, order)}{closing}"


def shop_record(random: Random) -> str:
    """JSON as it lies about in any pile of text; no order is told in words beside it."""
    stock = {goods.key: random.randint(1, 30) for goods in random.sample(GOODS, 2)}
    return json.dumps(random.choice((
        {"shop": random.choice(SHOPS), "open": random.randint(6, 10), "items": stock},
        {"day": random.choice(DAYS), "weather": random.choice(WEATHER), "boats": random.randint(1, 20)},
        {"name": random.choice(NAMES + NEW_NAMES), "age": random.randint(8, 80)},
        {"name": random.choice(NAMES + NEW_NAMES), "shop": random.choice(SHOPS), "items": stock},
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


def document(random: Random) -> str:
    return random.choices((market_story, small_talk, shop_record), (0.8, 0.1, 0.1))[0](random)


# ---- fine-tuning -----------------------------------------------------------------------------


def conversation(random: Random, names: tuple[str, ...], second_share: float) -> dict:
    messages = []
    for _ in range(2 if random.random() < second_share else 1):
        order = make_order(random, names)
        messages.append({"role": "user", "content": request(random, order)})
        messages.append({"role": "assistant", "content": order.record()})
    return {"messages": messages}
