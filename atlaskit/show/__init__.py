"""Arrays in, Bokeh figures out: what is drawn, never what it means."""

from atlaskit.show.curve import curve as curve
from atlaskit.show.curve import curve_columns as curve_columns
from atlaskit.show.explorer import Compare as Compare
from atlaskit.show.explorer import Explorer as Explorer
from atlaskit.show.export import export as export
from atlaskit.show.grid import head_columns as head_columns
from atlaskit.show.grid import head_grid as head_grid
from atlaskit.show.heatmap import heatmap as heatmap
from atlaskit.show.heatmap import heatmap_columns as heatmap_columns
from atlaskit.show.intervals import interval_columns as interval_columns
from atlaskit.show.intervals import intervals as intervals
from atlaskit.show.live import bind as bind
from atlaskit.show.live import explore_swaps as explore_swaps
from atlaskit.show.mosaic import mosaic as mosaic
from atlaskit.show.mosaic import mosaic_columns as mosaic_columns
from atlaskit.show.page import draw as draw
from atlaskit.show.page import html as html
from atlaskit.show.page import load_notebook as load_notebook
from atlaskit.show.paths import path_columns as path_columns
from atlaskit.show.paths import paths as paths
from atlaskit.show.points import points as points
from atlaskit.show.strip import token_strip as token_strip
from atlaskit.show.swap import swap as swap
from atlaskit.show.theme import source as source
from atlaskit.show.trade_off import trade_off as trade_off
from atlaskit.show.trade_off import trade_off_columns as trade_off_columns
