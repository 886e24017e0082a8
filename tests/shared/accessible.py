"""What axe-core finds on a page."""

from axe_playwright_python.sync_playwright import Axe


def serious(page, within=None):
    """What is serious or worse, as (rule, element)."""
    found = Axe().run(page, context=within).response["violations"]
    return [
        (one["id"], node["html"]) for one in found if one["impact"] in ("serious", "critical") for node in one["nodes"]
    ]
