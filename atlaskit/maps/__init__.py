"""Maps of many things from their distances: a layout, groups if there are any, and how far to trust them."""

from .head_map import HeadMap as HeadMap
from .head_map import head_map as head_map
