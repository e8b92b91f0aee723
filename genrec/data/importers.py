"""The datasets of the GAMER paper: how each is read, cut into sessions and filtered, and what table 1 says it counts.

Users are drawn by our own seeded hash, the paper's draw is not published, so the counts of `tmall` and `jdata` can come
near table 1 but not meet it; the manifest reports both numbers of each. No data ship with genrec.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from genrec.data.config import DataConfig
from genrec.data.prepared import PreparedDataset


@dataclass(frozen=True)
class Importer:
    """One dataset's rules.

    Args:
        name: The dataset.
        source: Where its files come from and what columns they are taken to have.
        settings: The `DataConfig` fields that state the paper's rules (section 4.1.1) and counts (table 1).
    """

    name: str
    source: str
    settings: Mapping[str, Any]

    def config(self, interactions: str | Path | list[str], **changes: Any) -> DataConfig:
        """Return the paper's rules for files on this machine.

        Args:
            interactions: The log: a file, files, a glob pattern, or the released folder.
            **changes: `DataConfig` fields to set otherwise, or beside.

        Raises:
            ValueError: If a field is unknown or out of range, or `start_time` is missing: the paper uses one week of
                tmall without saying which.
        """
        paths = interactions if isinstance(interactions, list) else str(interactions)
        settings = {**self.settings, "interactions": paths, **changes}
        return DataConfig.from_dict(settings)

    def prepare(self, interactions: str | Path | list[str], output_dir: str | Path, **changes: Any) -> PreparedDataset:
        """Prepare the dataset by the paper's rules and compare its counts with table 1.

        Args:
            interactions: As for `config`.
            output_dir: The folder to write.
            **changes: As for `config`; `strict_counts=True` refuses a log that counts otherwise than the paper.

        Raises:
            ValueError: As `InteractionLog.read` and `prepare`.
        """
        from genrec.data.preparation import prepare, read_sources

        config = self.config(interactions, **changes)
        log, catalog = read_sources(config)
        return prepare(log, config, output_dir, catalog)


def _counts(users: int, items: int, sessions: int, interactions: int) -> dict[str, int]:
    return {"users": users, "items": items, "sessions": sessions, "interactions": interactions}


SHORTVIDEOAD = Importer(
    name="shortvideoad",
    source=(
        "github.com/wzf2000/GAMER, folder data/ShortVideoAD (Git LFS): the released layout, which brings the ladder "
        "(p3s, click, conversion), the sessions (15 minutes idle) and the codes."
    ),
    settings=MappingProxyType(
        {
            "session_column": "session",
            "sessions": "column",
            "time_zone": "Asia/Shanghai",
            "short_users": "drop",
            "expected_counts": _counts(48_779, 168_530, 1_874_719, 7_877_083),
        }
    ),
)
TMALL = Importer(
    name="tmall",
    source=(
        "tianchi.aliyun.com/dataset/140281. Taken to be a CSV with the columns item_id, user_id, action (click, "
        "collect, cart, alipay) and vtime (date-time, China time). One week, a quarter of the users, sessions by day."
    ),
    settings=MappingProxyType(
        {
            "behaviors": "click,collect,cart,alipay",
            "behavior_column": "action",
            "time_column": "vtime",
            "time_zone": "Asia/Shanghai",
            "sessions": "day",
            "num_days": 7,
            "user_share": 0.25,
            "short_users": "drop",
            "expected_counts": _counts(217_374, 379_450, 856_756, 3_818_122),
        }
    ),
)
JDATA = Importer(
    name="jdata",
    source=(
        "The 2017 JData contest of JD.com: JData_Action_201602.csv and the two months after, with the columns user_id, "
        "sku_id, time (date-time, China time) and type: 1 page view, 2 cart, 3 removal from the cart (left out), 4 "
        "purchase, 5 collect, 6 click. A tenth of the users, sessions by 30 minutes idle."
    ),
    settings=MappingProxyType(
        {
            "behaviors": "page_view,click,collect,cart,purchase",
            "item_column": "sku_id",
            "behavior_column": "type",
            "time_column": "time",
            "time_zone": "Asia/Shanghai",
            "behavior_names": {"1": "page_view", "6": "click", "5": "collect", "2": "cart", "4": "purchase"},
            "other_behaviors": "drop",
            "sessions": "gap",
            "gap_minutes": 30.0,
            "user_share": 0.1,
            "short_users": "drop",
            "expected_counts": _counts(10_010, 17_100, 195_860, 1_643_212),
        }
    ),
)
IMPORTERS = {importer.name: importer for importer in (SHORTVIDEOAD, TMALL, JDATA)}
