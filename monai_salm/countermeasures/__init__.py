"""What an adversary would try; a new countermeasure is one file here and one entry in ``COUNTERMEASURES``."""

from __future__ import annotations

from monai_salm.countermeasures.base import Countermeasure, Identity
from monai_salm.countermeasures.blur import Blur
from monai_salm.countermeasures.jpeg import Jpeg

#: By name, with the settings that ``evaluate`` uses.
COUNTERMEASURES: dict[str, Countermeasure] = {item.name: item for item in (Identity(), Jpeg(), Blur())}

__all__ = ["COUNTERMEASURES", "Blur", "Countermeasure", "Identity", "Jpeg"]
