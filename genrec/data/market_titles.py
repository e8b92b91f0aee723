"""Words for the synthetic market's catalog: titles that tell an item's category, subcategory and brand."""

import numpy as np

from genrec.data.market_settings import SUBCATEGORIES

CATEGORIES = {
    "phones": ("smartphone", "phone case", "charger"),
    "computers": ("laptop", "laptop sleeve", "docking station"),
    "audio": ("headphones", "speaker", "turntable"),
    "photography": ("camera", "lens", "tripod"),
    "kitchen": ("espresso machine", "coffee grinder", "coffee cups"),
    "cooking": ("frying pan", "chef knife", "cutting board"),
    "garden": ("lawn mower", "hedge trimmer", "watering can"),
    "tools": ("cordless drill", "drill bits", "tool box"),
    "running": ("running shoes", "running socks", "sports watch"),
    "camping": ("tent", "sleeping bag", "camping stove"),
    "cycling": ("bicycle", "bicycle lock", "cycling helmet"),
    "winter": ("skis", "ski boots", "ski goggles"),
    "baby": ("stroller", "diaper bag", "baby monitor"),
    "toys": ("building blocks", "puzzle", "board game"),
    "office": ("desk", "office chair", "desk lamp"),
    "bedroom": ("mattress", "pillow", "bed linen"),
    "fashion": ("jacket", "scarf", "leather gloves"),
    "jewelry": ("wristwatch", "watch strap", "jewelry box"),
    "beauty": ("face cream", "perfume", "hair dryer"),
    "pets": ("dog food", "dog leash", "pet bed"),
}
BRANDS = (
    "Norvik",
    "Altera",
    "Brisa",
    "Kestrel",
    "Lumo",
    "Tandem",
    "Oakline",
    "Verano",
    "Zephyr",
    "Quill",
    "Mistral",
    "Ember",
)
QUALITIES = (
    "compact",
    "classic",
    "premium",
    "light",
    "sturdy",
    "smart",
    "travel",
    "family",
    "studio",
    "everyday",
    "slim",
    "eco",
)
COLORS = ("black", "white", "blue", "red", "green", "grey", "silver", "brown", "yellow", "orange", "violet", "beige")


def describe_items(needs: np.ndarray, brands: np.ndarray, seed: int) -> dict[str, list[str]]:
    """Return the columns `title`, `category`, `subcategory` and `brand`, one entry per item.

    Args:
        needs: Subcategory number of each item, `[items]`; three in a row share a category.
        brands: Brand number of each item, `[items]`.
        seed: Decides the words that mean nothing: quality, color, model number.

    Example:
        >>> columns = describe_items(np.array([0, 4]), np.array([2, 0]), seed=0)
        >>> columns["category"], columns["subcategory"], columns["brand"]
        (['phones', 'computers'], ['smartphone', 'laptop sleeve'], ['Brisa', 'Norvik'])
    """
    rng = np.random.default_rng([seed, 6])
    qualities = rng.choice(QUALITIES, len(needs))
    colors = rng.choice(COLORS, len(needs))
    models = rng.integers(100, 1000, len(needs))
    category_of = [_category(need) for need in range(int(needs.max()) + 1)]
    subcategory_of = [_subcategory(need) for need in range(int(needs.max()) + 1)]
    columns = {
        "category": [category_of[need] for need in needs.tolist()],
        "subcategory": [subcategory_of[need] for need in needs.tolist()],
        "brand": [_numbered(BRANDS, brand) for brand in brands.tolist()],
    }
    parts = zip(columns["brand"], qualities, columns["subcategory"], colors, models, columns["category"], strict=True)
    titles = [
        f"{brand} {quality} {noun} {color} {model} ({category})"
        for brand, quality, noun, color, model, category in parts
    ]
    return {"title": titles, **columns}


def _category(need: int) -> str:
    return _numbered(tuple(CATEGORIES), need // SUBCATEGORIES)


def _subcategory(need: int) -> str:
    known = need // SUBCATEGORIES % len(CATEGORIES)
    noun = list(CATEGORIES.values())[known][need % SUBCATEGORIES]
    edition = need // SUBCATEGORIES // len(CATEGORIES)
    return noun if edition == 0 else f"{noun} {edition + 1}"


def _numbered(names: tuple[str, ...], number: int) -> str:
    """Name things past the end of the list by the list once more, with an edition number."""
    edition = number // len(names)
    return names[number % len(names)] if edition == 0 else f"{names[number % len(names)]} {edition + 1}"
