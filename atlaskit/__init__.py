"""atlaskit: see what attention does inside any transformer, and whether it beats chance.

The rooms are imported by name, so that nothing loads before it is used::

    from atlaskit import measure, models, show
"""

__version__ = "0.1.0"
