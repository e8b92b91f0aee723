"""From a log of behaviors to integer histories: reading, sessions, filters, splits, augmentation, a market."""

from genrec.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.data.augmentation": ["drop_behaviors"],
        "genrec.data.behaviors": ["BehaviorLadder"],
        "genrec.data.catalog": ["Catalog"],
        "genrec.data.histories": ["Histories", "History", "Queries", "as_histories"],
        "genrec.data.interactions": ["InteractionLog"],
        "genrec.data.neighbors": ["NeighborIndex"],
        "genrec.data.recent_events": ["RecentEvents", "Trending"],
        "genrec.data.config": ["DataConfig"],
        "genrec.data.preparation": ["prepare"],
        "genrec.data.prepared": ["PreparedDataset"],
        "genrec.data.market": ["SyntheticMarket"],
    },
)
